"""Rewards: pictures and tasks in, one score a picture out. Each class says its model, preprocessing and scale in full.

dino.DinoSeg           identity  DINOv2 or DINOv3 ViT, CLS token of the subject, cut out by a segmenter; cosine, -1 to 1
hpsv3.HPSv3            prompt    Qwen2-VL-7B with HPSv3's head, about 448 x 448 pixels; the mean score mu, unbounded
clip.ClipText          prompt    CLIP of picture and raw prompt; cosine, -1 to 1
clip.ClipImage         identity  CLIP of picture and reference, both whole; cosine, -1 to 1
base.FunctionReward    as told   a function of yours

Segmenters: open_vocabulary.GroundedSam (GroundingDINO and SAM) and Sam3Segmenter, segment.SemanticSegmenter
(Segformer, closed vocabulary), or the data set's own masks of references. All pictures are prepared by PIL, as the
models were published; every checkpoint is safetensors and loaded strictly.
"""

from cgrpo.rewards.base import FunctionReward, Reward, scored

__all__ = ["FunctionReward", "Reward", "scored"]
