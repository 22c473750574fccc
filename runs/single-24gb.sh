#!/usr/bin/env bash
# One 24 GB GPU: the base's blocks in 8 bits, a smaller adapter, CLIP in place of HPSv3, 2 prompts an iteration.
#   runs/single-24gb.sh MANIFEST [--set KEY=VALUE ...]        needs pip install 'customized-grpo[int8]'
set -euo pipefail
manifest=${1:?give a manifest of prompts and references (.json or .jsonl)}
shift
out=${OUT:-outputs/single-24gb}
settings=(
    --set data.source="$manifest"
    --set policy.quantise=int8 --set policy.rank=64 --set policy.offload=true
    --set sampling.batch=12 --set training.micro_batch=1 --set training.prompts_per_iteration=2
    --set rewards.identity.path=facebook/dinov2-base
    --set rewards.prompt.type=clip --set rewards.prompt.path=openai/clip-vit-large-patch14
)
cgrpo data encode uno-dinoseg-hpsv3 "${settings[@]}" --out "$out-encoded" "$@"
exec cgrpo train uno-dinoseg-hpsv3 --out "$out" "${settings[@]}" --set data.cache="$out-encoded" "$@"
