#!/usr/bin/env bash
# FLUX.2-klein-base-4B on one 24 GB GPU: CLIP in place of HPSv3, 2 prompts an iteration, 200 iterations.
#   runs/klein-24gb.sh MANIFEST [--set KEY=VALUE ...]        the same again after a crash goes on where it was
set -euo pipefail
manifest=${1:?give a manifest of prompts and references (.json or .jsonl)}
shift
out=${OUT:-outputs/klein-24gb}
encoded=${ENCODED:-$out-encoded}  # several runs may share one
cgrpo data encode klein-24gb --set data.source="$manifest" --out "$encoded" "$@"
if [ -e "$out/config.json" ]; then  # begun before: go on from its newest checkpoint
    exec cgrpo train --resume "$out" --set data.source="$manifest" "$@"
fi
exec cgrpo train klein-24gb --out "$out" --set data.source="$manifest" --set data.cache="$encoded" "$@"
