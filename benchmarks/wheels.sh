#!/usr/bin/env bash
# The wheels that a GPU machine with torch, transformers, peft and accelerate, but no package index, lacks.
#
#   benchmarks/wheels.sh DIR [PYTHON]
#
# They are for CPython 3.12 on Linux x86-64, in constraints.txt's versions. Then the package is imported and a tiny run
# trained with them by PYTHON, a Python 3.12 that has the rest (torch 2.11, transformers 5.17 or newer, peft, accelerate);
# where none is named, an environment is made for that, which downloads torch with its CUDA libraries.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:?"usage: benchmarks/wheels.sh DIR [PYTHON]"}
python=${2:-}
names=(diffusers importlib_metadata zipp lazy-importer pydantic pydantic_core annotated-types typing-inspection typing_extensions torchao)
platforms=()
for glibc in 2_17 2_24 2_27 2_28; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$folder"
for name in "${names[@]}"; do
    pin=$(grep -i "^$name==" "$root/constraints.txt") || { echo "constraints.txt pins no $name" >&2 && exit 1; }
    python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        "${platforms[@]}" --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d "$folder" "$pin"
done
du -sh "$folder"

if [[ -z $python ]]; then
    python3.12 -m venv "$work/venv"
    python=$work/venv/bin/python
    "$python" -m pip install -q 'torch==2.11.*' 'transformers==5.17.*' 'peft>=0.18' 'accelerate>=1.12' requests scipy \
        matplotlib jinja2 tensorboard sentencepiece
fi
"$python" -m pip install -q --no-index --no-deps --no-compile --target "$work/site" "$folder"/*.whl
export PYTHONPATH="$work/site:$root/src" HF_HUB_OFFLINE=1
"$python" -c 'import sys, torch, transformers; print("Python", sys.version.split()[0], "torch", torch.__version__, "transformers", transformers.__version__)'
"$python" -c 'import cgrpo.app.run, cgrpo.rewards.hpsv3, cgrpo.rewards.open_vocabulary, cgrpo.policies.memory'
"$python" -m cgrpo train --out "$work/run" --set training.iterations=1 --set training.prompts_per_iteration=2 \
    --set training.group_size=2 --set sampling.steps=3 --set evaluation.enabled=false --set guard.every=0
echo "the package runs with these wheels"
