#!/usr/bin/env bash
# UNO on one 24 GB GPU: recipe uno-24gb, which says what differs from the paper's, or RECIPE=uno-24gb-short, a sixth of
# the time. docs/hardware.md has the hours by plan; nothing was measured.
#   runs/single-24gb.sh MANIFEST [--set KEY=VALUE ...]        the same again after a crash goes on where it was
# Needs torchao: pip install '.[int8]' in this folder.
set -euo pipefail
manifest=${1:?give a manifest of prompts and references (.json or .jsonl)}
shift
recipe=${RECIPE:-uno-24gb}
out=${OUT:-outputs/$recipe}  # a folder a recipe, or a run of the other one would go on
encoded=${ENCODED:-$out-encoded}  # several runs may share one
cgrpo data encode "$recipe" --set data.source="$manifest" --out "$encoded" "$@"
if [ -e "$out/config.json" ]; then  # begun before: go on from its newest checkpoint
    exec cgrpo train --resume "$out" --set data.source="$manifest" "$@"
fi
exec cgrpo train "$recipe" --out "$out" --set data.source="$manifest" --set data.cache="$encoded" "$@"
