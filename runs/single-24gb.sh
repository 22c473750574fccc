#!/usr/bin/env bash
# One 24 GB GPU (recipe uno-24gb, which says what differs from the paper's). By plan 54 hours on a 4090, 125 on a 3090;
# RECIPE=uno-24gb-short: 10 and 23 hours. Neither was measured.
#   runs/single-24gb.sh MANIFEST [--set KEY=VALUE ...]        the same again after a crash goes on where it was
# Needs torchao: pip install '.[int8]' in this folder.
set -euo pipefail
manifest=${1:?give a manifest of prompts and references (.json or .jsonl)}
shift
recipe=${RECIPE:-uno-24gb}
out=${OUT:-outputs/single-24gb}
cgrpo data encode "$recipe" --set data.source="$manifest" --out "$out-encoded" "$@"
if [ -e "$out/config.json" ]; then  # begun before: go on from its newest checkpoint
    exec cgrpo train --resume "$out" "$@"
fi
exec cgrpo train "$recipe" --out "$out" --set data.source="$manifest" --set data.cache="$out-encoded" "$@"
