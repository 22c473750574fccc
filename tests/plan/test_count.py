"""Counts on made-up tensors against published sizes, against figures by hand, and against real tensors."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny_qwen
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from cgrpo.config import load_config
from cgrpo.errors import UserError
from cgrpo.hub import asset, read_settings
from cgrpo.plan.count import count_call
from cgrpo.plan.policy import CountedPolicy, count_policy
from cgrpo.plan.rewards import reward_models
from cgrpo.policies.memory import set_checkpointing
from cgrpo.policies.settings import Checkpointing, PolicySettings
from cgrpo.rewards import read_settings as reward_settings

FLUX1 = {"t5 text encoder": 4_762_310_656, "clip text encoder": 123_060_480, "autoencoder": 83_819_683}
PUBLISHED = {
    "black-forest-labs/FLUX.1-dev": {"transformer": 11_901_408_320} | FLUX1,
    "black-forest-labs/FLUX.1-Kontext-dev": {"transformer": 11_901_408_320} | FLUX1,
    "black-forest-labs/FLUX.2-klein-base-4B": {
        "transformer": 3_875_544_576, "qwen text encoder": 3_114_090_752, "autoencoder": 84_046_115,
    },
    "black-forest-labs/FLUX.2-klein-9B@main": {
        "transformer": 9_078_581_248, "qwen text encoder": 5_831_887_616, "autoencoder": 84_046_115,
    },
}  # fmt: skip
REWARDS = {  # parameters, and GFLOP per picture
    "facebook/dinov2-small": (22_056_576, 12.2),
    "facebook/dinov2-base": (86_580_480, 46.3),
    "facebook/dinov2-large": (304_368_640, 162.0),
    "facebook/dinov2-giant": (1_136_480_768, 598.8),
    "IDEA-Research/grounding-dino-tiny": (172_250_626, 500.6),
    "facebook/sam-vit-base": (93_735_728, 975.7),
    "facebook/sam-vit-large": (312_343_088, 2989.3),
    "facebook/sam-vit-huge": (641_090_864, 5964.7),
    "openai/clip-vit-base-patch32": (151_277_313, 8.8),
    "openai/clip-vit-base-patch16": (149_620_737, 35.1),
    "openai/clip-vit-large-patch14": (427_616_513, 162.0),
    "yuvalkirstain/PickScore_v1": (986_109_441, 334.6),
    "facebook/dino-vits16": (21_665_664, 9.2),
    "google/siglip2-so400m-patch14-384": (428_225_602, 670.3),  # the half that sees
}


@pytest.mark.parametrize("path", PUBLISHED)
def test_published_policies(path: str) -> None:
    sizes = {"height": 512, "width": 512, "reference_size": 512, "guidance": 1}
    policy = count_policy(PolicySettings(path=path, **sizes), 1)  # pyright: ignore[reportArgumentType]
    assert policy.parameters == PUBLISHED[path]
    assert (policy.tokens.target, policy.tokens.references, policy.tokens.text) == (1024, 1024, 512)


KINDS = {"dino-": "dino", "clip": "clip", "Pick": "pickscore", "sigl": "siglip2"}


@pytest.mark.parametrize("path", REWARDS)
def test_published_rewards(path: str) -> None:
    name = path.split("/")[1]
    kind = next((kind for start, kind in KINDS.items() if name.startswith(start)), "dino-seg")
    table = {"segmenter": path} if name.startswith(("sam", "grounding")) else {"path": path}
    none = {"masks": "none"} if "dinov2" in name else {}
    model = reward_models({"identity": reward_settings({"type": kind, **table, **none}, "identity")})[-1]
    assert (model.parameters, model.model) == (REWARDS[path][0], path)
    assert model.operations is not None and model.operations / 1e9 == pytest.approx(REWARDS[path][1], abs=0.05)
    assert model.memory == 4 * REWARDS[path][0]


def test_hpsv3() -> None:
    """Qwen2-VL-7B's 8,291,375,616 parameters without the head over 152,064 words, and a head of three layers."""
    (model,) = reward_models({"prompt": load_config("uno-dinoseg-hpsv3").rewards["prompt"]})
    head = 3585 * 1024 + 1025 * 16 + 17 * 2
    assert model.parameters == 8_291_375_616 - 152_064 * 3584 + head
    assert model.memory == 2 * (model.parameters - head) + 4 * head
    assert model.operations is not None and 13e12 < model.operations < 15e12


def paper() -> CountedPolicy:
    return count_policy(load_config("uno-dinoseg-hpsv3").policy, 1)


def test_flux_at_512_pixels_and_rank_512() -> None:
    """By hand, D = 3072, L = 2560: every block has 12 D^2 weights a token: 57 * 12 D^2 * 2 L = 33.05e12; attention
    57 * 4 L^2 D = 4.59e12; LoRA (19 * 6 + 38 * 10) * 512 * D * 2 L = 3.98e12. A backward of attention is 2.5 times its
    forward: flash attention computes q k^T again."""
    found = paper().operations
    assert found.base / 1e12 == pytest.approx(33.05 + 4.59, abs=0.05)
    assert (found.forward - found.base) / 1e12 == pytest.approx(3.98, abs=0.01)
    assert found.again["selective"] == found.forward - found.base
    assert found.backward / 1e12 == pytest.approx(33.0 + 2.5 * 4.59 + 2 * 3.98, abs=0.2)
    assert 0 < found.forward - found.again["full"] < 0.02e12  # the embeddings and the last layer
    assert paper().trained == 956_301_312  # the released UNO adapter's size


def test_the_papers_iteration() -> None:
    """12 samples of 25 steps, int(0.6 * 24) = 14 of them trained: 300 forwards, 168 forward-backwards."""
    found = paper().operations
    ours = 300 * found.forward + 168 * (found.forward + found.backward)
    assert ours / 1e15 == pytest.approx(28.3, abs=0.05)
    assert (ours + 168 * found.again["full"]) / 1e15 == pytest.approx(35.3, abs=0.05)


def test_a_single_block_of_flux_at_512_pixels() -> None:
    """By hand, in numbers a token, D = 3072, r = 512, H = 24. Two bytes each: LoRA inputs D + 5 D and middles 2 r;
    q, k, v 3 D; rotated q, k 2 D; attention's output D; activation's input 4 D. Four bytes each: copies of q and k
    2 D, their scales 2 H, log-sum H, layer norm's input and statistics D + 2. Two bytes a sample: modulation 4 D;
    and the copy of the LoRA, 10 D r."""
    d, r, h = 3072, 512, 24
    per_token = 2 * (16 * d + 2 * r) + 4 * (3 * d + 3 * h + 2)
    shallower = CountedPolicy(load_config("uno-dinoseg-hpsv3").policy, 1)
    shallower.depth["num_single_layers"] = 37
    found = paper().activations(1, "off").kept - shallower.activations(1, "off").kept
    assert found == 2560 * per_token + 2 * 4 * d + 2 * 10 * d * r


FLUX = {
    "num_layers": 2, "num_single_layers": 3, "num_attention_heads": 2, "attention_head_dim": 16,
    "axes_dims_rope": [4, 6, 6], "in_channels": 32, "joint_attention_dim": 20,
}  # fmt: skip
KLEIN = {"_class_name": "Flux2Transformer2DModel", "axes_dims_rope": [4, 4, 4, 4], "guidance_embeds": False}
QWEN = {
    "_class_name": "QwenImageTransformer2DModel", "in_channels": 16, "out_channels": 4, "num_layers": 3,
    "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 16, "axes_dims_rope": [4, 6, 6],
    "zero_cond_t": True,
}  # fmt: skip
WIDE = {"num_layers": 1, "num_single_layers": 4, "attention_head_dim": 64, "axes_dims_rope": [16, 24, 24]}
SIZES: dict[str, Any] = {"height": 64, "width": 64, "reference_size": 48}
CASES: dict[str, tuple[dict[str, Any], int, int, str]] = {  # the transformer's configuration, rank, samples, dtype
    "one-sample": (FLUX | {"num_layers": 1, "num_attention_heads": 3, "guidance_embeds": False}, 8, 1, "bfloat16"),
    "singles-alone": (FLUX | {"num_layers": 0}, 4, 2, "float32"),
    "wide": (FLUX | WIDE, 16, 2, "bfloat16"),
    "wide-float32": (FLUX | WIDE, 16, 3, "float32"),
    "klein": (FLUX | KLEIN, 5, 1, "float32"),
    "klein-singles-alone": (FLUX | KLEIN | {"num_layers": 0}, 4, 2, "bfloat16"),
    "qwen": (QWEN, 4, 2, "float32"),
    "qwen-wide": (QWEN | {"num_attention_heads": 12, "axes_dims_rope": [4, 6, 6]}, 8, 2, "bfloat16"),
    "klein-wide": (FLUX | KLEIN | WIDE | {"axes_dims_rope": [16, 16, 16, 16]}, 16, 2, "bfloat16"),
}


def tiny(folder: Path, name: str) -> CountedPolicy:
    """The policy of a folder that holds configurations alone."""
    config, rank, samples, dtype = CASES[name]
    if config.get("_class_name") == QWEN["_class_name"]:
        tiny_qwen.build_folder(folder, **{key: value for key, value in config.items() if key != "_class_name"})
        return CountedPolicy(PolicySettings(path=str(folder), **SIZES, rank=rank, dtype=dtype), 1, samples)  # pyright: ignore
    read = {part: read_settings(asset("policy"), f"{part}/config.json") for part in ("vae", "text_encoder_2")}
    qwen = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    klein = "_class_name" in config
    parts = {
        "transformer": {"_class_name": "FluxTransformer2DModel", "guidance_embeds": True} | config,
        "vae": read["vae"],
        "text_encoder": qwen if klein else read_settings(asset("policy"), "text_encoder/config.json"),
        "text_encoder_2": read["text_encoder_2"],
    }
    if klein:
        blocks = {"block_out_channels": [4, 4, 8], "norm_num_groups": 2, "latent_channels": 8}
        kinds = {
            f"{end.lower()}_block_types": [f"{end}{way}Block2D"] * 3
            for end, way in (("Down", "Encoder"), ("Up", "Decoder"))
        }
        parts["vae"] = blocks | kinds
    for part, table in parts.items():
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps(table))
    for part in ("tokenizer", "tokenizer_2"):
        (folder / part).mkdir()
        (folder / part / "tokenizer_config.json").write_text('{"model_max_length": 24}')
    return CountedPolicy(PolicySettings(path=str(folder), **SIZES, rank=rank, dtype=dtype), 1, samples)  # pyright: ignore


def of_attention(products: int) -> Any:
    """Products of queries and keys, [samples, heads, rows, width], by their shapes."""

    def count(query: Any, key: Any, *rest: Any, **named: Any) -> int:
        samples, heads, rows, width = query
        return products * 2 * samples * heads * rows * key[2] * width

    return count


def counter() -> FlopCounterMode:
    """PyTorch's own, which leaves the CPU's attention out."""
    aten, backward = torch.ops.aten, of_attention(5)
    rules = {
        aten._scaled_dot_product_flash_attention_for_cpu: of_attention(2),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, *rest, **named: backward(*rest),
    }
    return FlopCounterMode(display=False, custom_mapping=rules)


class Live(TorchDispatchMode):
    """Bytes of the tensors that operations under it created and that are still alive (``now``), and their ``peak``."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: dict[int, tuple[int, Any]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        results = function(*args, **(kwargs or {}))
        for storage in (x.untyped_storage() for x in tree_leaves(results) if isinstance(x, torch.Tensor)):
            if storage._cdata not in self.seen and storage._cdata not in given:
                self.watch(storage)
        return results

    def watch(self, storage: torch.UntypedStorage) -> None:
        identity = storage._cdata
        self.seen[identity] = storage.nbytes(), weakref.ref(storage, lambda _: self.gone(identity))
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def gone(self, identity: int) -> None:
        self.now -= self.seen.pop(identity)[0]


@pytest.fixture
def like_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms as CUDA's autocast computes them: in float32, on a copy of their own."""
    layer_norm, rms_norm = F.layer_norm, F.rms_norm
    monkeypatch.setattr(F, "layer_norm", lambda x, *rest: layer_norm(x.float(), *rest))
    monkeypatch.setattr(F, "rms_norm", lambda x, shape, w, eps: rms_norm(x.float(), shape, w.float(), eps))


@pytest.mark.parametrize("name", CASES)
def test_counts_are_those_of_real_tensors(tmp_path: Path, name: str, like_cuda: None) -> None:
    """A whole model on the CPU: operations are equal; what is kept is within 1 %, a peak within 10 %."""
    counted, samples = tiny(tmp_path, name), CASES[name][2]
    policy, transformer = counted.empty(counted.depth)
    transformer.to_empty(device="cpu")
    for module in transformer.modules():  # what are neither parameters nor buffers
        plain = {name: value for name, value in vars(module).items() if isinstance(value, torch.Tensor)}
        vars(module).update({name: torch.zeros_like(value, device="cpu") for name, value in plain.items()})
    policy.add_adapter(counted.settings.rank, 0)
    numbers = sum(parameter.numel() for parameter in transformer.parameters())
    assert counted.parameters["transformer"] + counted.trained == numbers
    for parameter in policy.trainable_parameters().values():
        parameter.grad = torch.zeros_like(parameter)
    condition = counted.condition(policy).repeat(samples)
    given = torch.zeros(samples, *policy.latent_shape), torch.ones(samples), condition
    with policy.reference(), counter() as base, torch.no_grad():
        policy.velocity(*given)
    modes: tuple[Checkpointing, ...] = ("off", "selective", "full")
    for mode in modes:
        set_checkpointing(transformer, mode)
        with counter() as ahead:
            out = policy.velocity(*given)
        with counter() as back:
            out.sum().backward()
        with Live() as live:  # apart: the counter's hooks keep tensors alive
            out = policy.velocity(*given)
            kept = live.now
            out.float().square().sum().backward()
        found, needed = counted.operations, counted.activations(samples, mode)
        assert (base.get_total_flops(), ahead.get_total_flops()) == (samples * found.base, samples * found.forward)
        behind = samples * (found.backward + found.again[mode])
        # Qwen's last block has fewer layers that train than those before it, and keeps less.
        assert back.get_total_flops() == pytest.approx(behind, rel=2e-3 if "qwen" in name else 0)
        assert needed.kept == pytest.approx(kept, rel=0.06 if "qwen" in name else 0.01)
        if "wide" in name:  # elsewhere what is per sample outweighs what is per token
            assert needed.kept + needed.at_work == pytest.approx(live.peak, rel=0.1)


def test_a_call_is_counted_as_real_tensors_are() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 24), nn.GELU(), nn.Linear(24, 8), nn.LayerNorm(8))

    with torch.device("meta"):
        model = make()
    found = count_call(model, lambda: model(torch.empty(5, 8)))
    assert found.operations == 2 * 2 * 5 * 8 * 24
    real = make()
    with Live() as live, torch.no_grad():
        real(torch.empty(5, 8))
    assert found.at_work == live.peak


def test_a_folder_without_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    with pytest.raises(UserError, match=r"transformer/config\.json"):
        count_policy(PolicySettings(path=str(tmp_path), type="flux"), 1)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="config.json: can't be read"):
        read_settings(tmp_path)


def test_settings_come_from_the_hubs_cache_before_the_published_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = read_settings("facebook/dinov2-base@main")
    assert published is not None and published["hidden_size"] == 768
    assert read_settings("some/one") is None and read_settings("no name of a model at all") is None
    snapshot = tmp_path / "models--facebook--dinov2-base" / "snapshots" / "a"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"hidden_size": 5}')
    (tmp_path / "models--facebook--dinov2-base" / "refs").mkdir()
    (tmp_path / "models--facebook--dinov2-base" / "refs" / "main").write_text("a")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert read_settings("facebook/dinov2-base") == {"hidden_size": 5}
