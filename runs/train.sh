#!/usr/bin/env bash
# Encode a dataset's prompts and references, then train a recipe on it. After a crash, the same command resumes the run.
#   runs/train.sh RECIPE GPUS MANIFEST [--set KEY=VALUE ...]
# GPUS     1, or 8 on one node, or 2x8: two nodes that see one file system. Run that on both nodes, with MASTER=host0
#          and NODE=0 or NODE=1. Two nodes shard the frozen base (FSDP2), take 16 prompts and encode nothing first.
#          They start at different times, so resuming them takes RESUME=1 on both.
# OUT      the run's folder (default: outputs/RECIPE-GPUS)
# ENCODED  the encoded dataset, which runs may share (default: outputs/RECIPE-encoded)
# docs/guides/hardware.md says which GPU each recipe needs, and for how long.
set -euo pipefail
usage="usage: runs/train.sh RECIPE GPUS MANIFEST [--set KEY=VALUE ...]"
recipe=${1:?$usage} gpus=${2:?$usage} manifest=${3:?$usage}
shift 3
out=${OUT:-outputs/$recipe-$gpus}
encoded=${ENCODED:-outputs/$recipe-encoded}
resume=${RESUME:-}
settings=(--set data.source="$manifest")
case $gpus in
2x8)
    launch=(torchrun --nnodes 2 --node_rank "${NODE:?0 or 1}" --nproc_per_node 8
        --rdzv_backend c10d --rdzv_endpoint "${MASTER:?host name of node 0}:29500" --rdzv_id cgrpo -m cgrpo)
    settings+=(--set training.parallel=fsdp2 --set training.prompts_per_iteration=16)
    ;;
*)
    launch=(cgrpo)
    if [ "$gpus" != 1 ]; then launch=(torchrun --standalone --nproc_per_node "$gpus" -m cgrpo); fi
    settings+=(--set data.cache="$encoded")
    cgrpo data encode "$recipe" "${settings[@]}" --out "$encoded" "$@"
    if [ -e "$out/config.json" ]; then resume=1; fi
    ;;
esac
if [ -n "$resume" ]; then # with its own settings, from its newest checkpoint
    exec "${launch[@]}" train --resume "$out" --set data.source="$manifest" "$@"
fi
case $recipe:$gpus in
klein:1 | uno-dinoseg-hpsv3:1) # one 80 GB GPU has room to compute nothing twice: a fifth less time
    settings+=(--set policy.offload=true --set policy.checkpointing=off --set training.micro_batch=1)
    ;;
esac
exec "${launch[@]}" train "$recipe" --out "$out" "${settings[@]}" "$@"
