#!/usr/bin/env bash
# What one GPU does with this package, in minutes, one json line a figure in OUT/figures.jsonl, each written when measured.
#
#   benchmarks/gpu.sh OUT [--minutes 7] [--wheels DIR] [--tiny] [--stages NAME...]
#
# Needs python3 with torch, transformers, peft and accelerate. What else the package needs comes from --wheels DIR
# (made by benchmarks/wheels.sh where there is a package index), installed offline beside what is there; without it, from
# the index by pip, into the environment of this python3 (constraints.txt, but for torch's pin). --tiny goes the whole
# road on any CPU. Installing counts in the minutes. Ends with 0 if at least one figure was written.
set -uo pipefail
began=$SECONDS
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=${1:?"usage: benchmarks/gpu.sh OUT [--minutes 7] [--wheels DIR] [--tiny] [--stages NAME...]"}
shift
minutes=7 wheels="" options=()
while (($#)); do
    case $1 in
        --minutes) minutes=${2:?"--minutes wants a number"} && shift 2 ;;
        --wheels) wheels=${2:?"--wheels wants a folder"} && shift 2 ;;
        *) options+=("$1") && shift ;;
    esac
done
mkdir -p "$out"
export PYTHONPATH="$root/src:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1

if [[ -n $wheels ]]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" "$wheels"/*.whl >"$out/install.log" 2>&1
    export PYTHONPATH="$site:$PYTHONPATH"
elif ! python3 -c 'import diffusers, peft, pydantic, transformers' 2>/dev/null; then
    grep -v '^torch==' "$root/constraints.txt" >"$out/constraints.txt"
    python3 -m pip install -q -c "$out/constraints.txt" "$root" >"$out/install.log" 2>&1
fi

python3 "$root/benchmarks/real_size.py" --out "$out" --seconds $((${minutes%.*} * 60)) --spent $((SECONDS - began)) \
    "${options[@]}"
