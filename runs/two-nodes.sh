#!/usr/bin/env bash
# Two nodes of 8 GPUs, the frozen base sharded over all 16 (FSDP2), 16 prompts an iteration. Run on both nodes:
#   MASTER=host0 NODE=0 runs/two-nodes.sh MANIFEST [--set KEY=VALUE ...]      (NODE=1 on the other)
# After a crash RESUME=1 on both goes on from the newest checkpoint. The manifest and the output folder must lie on
# a file system that both nodes see.
set -euo pipefail
manifest=${1:?give a manifest of prompts and references (.json or .jsonl)}
shift
out=${OUT:-outputs/two-nodes}
launch=(torchrun --nnodes 2 --node_rank "${NODE:?0 or 1}" --nproc_per_node 8
    --rdzv_backend c10d --rdzv_endpoint "${MASTER:?host name of node 0}:29500" --rdzv_id cgrpo)
if [ -n "${RESUME:-}" ]; then
    exec "${launch[@]}" -m cgrpo train --resume "$out" --set data.source="$manifest" "$@"
fi
exec "${launch[@]}" -m cgrpo train uno-dinoseg-hpsv3 --out "$out" --set data.source="$manifest" \
    --set training.parallel=fsdp2 --set training.prompts_per_iteration=16 "$@"
