"""Rewards: pictures and tasks in, one score a picture out. Each class says its model, preprocessing and scale in full.

dino.DinoSeg           identity  DINOv2 or DINOv3 ViT, CLS token of the subject, cut out by a segmenter; cosine, -1 to 1
hpsv3.HPSv3            prompt    Qwen2-VL-7B with HPSv3's head, about 448 x 448 pixels; the mean score mu, unbounded
dino_v1.DinoV1         identity  DreamBench's DINO: DINO v1 ViT-S/16, whole pictures; cosine, -1 to 1
clip.ClipText          prompt    CLIP of picture and raw prompt; cosine, -1 to 1
clip.ClipImage         identity  CLIP of picture and reference, both whole; cosine, -1 to 1
preference.HPSv2       prompt    HPSv2.1, a CLIP ViT-H/14 trained on preferences; cosine, -1 to 1
preference.PickScore   prompt    PickScore, another; a logit, about 20
image_reward.ImageReward prompt  BLIP reading the prompt over the picture; standardised, about -2 to 2
aesthetic.Aesthetic    prompt    LAION's aesthetic predictor V1 or V2 on CLIP ViT-L/14; about 1 to 10
vlm.VlmJudge           as told   a vision-language model over the network, asked by our rubric; 0 to 4
base.FunctionReward    as told   a function of yours
remote.RemoteReward    as told   any of these in another process: cgrpo rewards serve

Segmenters: open_vocabulary.GroundedSam (GroundingDINO and SAM) and Sam3Segmenter, segment.SemanticSegmenter
(Segformer, closed vocabulary), or the data set's own masks of references. All pictures are prepared by PIL, as the
models were published; every checkpoint is safetensors and loaded strictly. Weights that are only published pickled
pass once through convert.
"""

from cgrpo.rewards.base import FunctionReward, Offloaded, Reward, scored

__all__ = ["FunctionReward", "Offloaded", "Reward", "scored"]
