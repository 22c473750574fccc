#!/usr/bin/env bash
# The paper's method on FLUX.2-klein-base-4B, one 80 GB GPU: 8 prompts an iteration, groups of 12, 500 iterations.
# Nothing is computed again.
#   runs/klein-80gb.sh MANIFEST [--set KEY=VALUE ...]        the same again after a crash goes on where it was
set -euo pipefail
manifest=${1:?give a manifest of prompts and references (.json or .jsonl)}
shift
out=${OUT:-outputs/klein-80gb}
encoded=${ENCODED:-$out-encoded}  # several runs may share one
cgrpo data encode klein --set data.source="$manifest" --out "$encoded" "$@"
if [ -e "$out/config.json" ]; then  # begun before: go on from its newest checkpoint
    exec cgrpo train --resume "$out" --set data.source="$manifest" "$@"
fi
exec cgrpo train klein --out "$out" --set data.source="$manifest" --set data.cache="$encoded" \
    --set policy.offload=true --set policy.checkpointing=off --set training.micro_batch=1 "$@"
