#!/usr/bin/env bash
# The paper's setting on one 80 GB GPU: the same 8 prompts an iteration, one after another, so 8 times as long.
# Nothing is computed again: a fifth less time than the recipe's own checkpointing (docs/performance.md).
#   runs/single-80gb.sh MANIFEST [--set KEY=VALUE ...]        the same again after a crash goes on where it was
set -euo pipefail
manifest=${1:?give a manifest of prompts and references (.json or .jsonl)}
shift
out=${OUT:-outputs/single-80gb}
encoded=${ENCODED:-$out-encoded}  # several runs may share one
cgrpo data encode uno-dinoseg-hpsv3 --set data.source="$manifest" --out "$encoded" "$@"
if [ -e "$out/config.json" ]; then  # begun before: go on from its newest checkpoint
    exec cgrpo train --resume "$out" --set data.source="$manifest" "$@"
fi
exec cgrpo train uno-dinoseg-hpsv3 --out "$out" --set data.source="$manifest" --set data.cache="$encoded" \
    --set policy.offload=true --set policy.checkpointing=off --set training.micro_batch=1 "$@"
