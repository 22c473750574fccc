#!/usr/bin/env bash
# The paper's setting on one node of 8 x 80 GB: one prompt a process, groups of 12, 1,250 iterations.
#   runs/paper-8gpu.sh MANIFEST [--set KEY=VALUE ...]        the same again after a crash goes on where it was
# Prompts and references are encoded first, so that no process holds T5 while training.
set -euo pipefail
manifest=${1:?give a manifest of prompts and references (.json or .jsonl)}
shift
out=${OUT:-outputs/paper}
encoded=${ENCODED:-$out-encoded}  # several runs may share one
cgrpo data encode uno-dinoseg-hpsv3 --set data.source="$manifest" --out "$encoded" "$@"
if [ -e "$out/config.json" ]; then  # begun before: go on from its newest checkpoint
    exec torchrun --standalone --nproc_per_node 8 -m cgrpo train --resume "$out" --set data.source="$manifest" "$@"
fi
exec torchrun --standalone --nproc_per_node 8 -m cgrpo train uno-dinoseg-hpsv3 --out "$out" \
    --set data.source="$manifest" --set data.cache="$encoded" "$@"
