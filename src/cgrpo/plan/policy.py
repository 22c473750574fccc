"""What a policy computes and keeps: its text encoders and autoencoder whole, its transformer by a few of its blocks.

All blocks of a kind do the same work, but for the first, before which nothing is trained. So models of one block of
each kind, and of one more of each kind in turn, give any number of blocks exactly. Where fewer layers of the last block
train, operations are within 0.2 %, and memory is a little too much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import torch
from PIL import Image
from torch import nn

from cgrpo.plan.count import Activations, Block, Counted, Meter, Operations, Tokens, count_call, made_up, parameters
from cgrpo.policies.build import family_of
from cgrpo.policies.memory import set_checkpointing
from cgrpo.policies.models import EmptyPolicy, empty_policy, text_tokens
from cgrpo.policies.settings import Checkpointing, PolicySettings
from cgrpo.types import Batch

DEPTH = ("num_layers", "num_single_layers")  # diffusers' names for the numbers of blocks of each kind


class CountedPolicy:
    """The policy that ``settings`` name, with a LoRA of their rank, for tasks of ``references`` square references.

    Operations are counted on ``samples`` samples: a micro-batch whose activations are wanted too, so that one
    measurement gives both.

    models       of the checkpoint, by part (``Policy.models``)
    depth        numbers of the transformer's blocks, by its configuration's key
    tokens       of one sample
    parameters   by part; the first is the transformer's
    blocks       of the transformer, in order
    negative     whether guidance is a second forward, with a negative prompt
    """

    def __init__(self, settings: PolicySettings, references: int, samples: int = 1) -> None:
        self.settings, self.references, self.samples = settings, references, samples
        self.family: Any = family_of(settings, fetch=False)
        self.negative = bool(self.family.also_encoded)
        more = references * self.family.text_per_reference
        self.models = {
            name: replace(model, tokens=model.tokens + more) if model.tokens else model
            for name, model in self.family.models(settings).items()
        }
        assumed: dict[str, str] = {}  # by the setting that is at fault
        for text in (model.assumed for model in self.models.values() if model.assumed):
            assumed.setdefault(text.partition(" is ")[0], text)
        self.assumed = list(assumed.values())
        config: Any = self.models["transformer"].empty().config
        self.depth = {key: config[key] for key in DEPTH if config.get(key)}
        self.autoencoder: Any = self.models["autoencoder"].empty()
        self.encoders = {
            name: model.empty() for name, model in self.models.items() if name not in ("transformer", "autoencoder")
        }
        self.codec = self.family.codec_type(self.autoencoder)
        self.policy = self.empty(self.depth)
        policy, transformer = self.policy
        self._pixels_per_token: int = policy.geometry.pixels
        self._side = ((settings.several_size if references > 1 else 0) or settings.reference_size) // (
            self._pixels_per_token
        )
        self.channels = policy.latent_shape[1]
        self.tokens = Tokens(policy.latent_shape[0], references * self._side**2, text_tokens(self.models))
        self.parameters = {
            "transformer": parameters(transformer),
            **{f"{name} text encoder": parameters(model) for name, model in self.encoders.items()},
            "autoencoder": parameters(self.autoencoder),
        }
        self.blocks = [
            Block(
                parameters(block),
                sum(layer.weight.numel() for layer in block.modules() if isinstance(layer, nn.Linear)),
            )
            for block in policy.blocks
        ]

    def empty(self, depth: Mapping[str, int]) -> EmptyPolicy:
        """The policy with ``depth`` blocks, without an adapter."""
        return empty_policy(self.family, self.models, self.settings, depth)

    @cached_property
    def text_operations(self) -> int:
        """Of one prompt."""

        def read(name: str) -> object:
            return self.encoders[name](torch.zeros(1, self.models[name].tokens, dtype=torch.long))

        return sum(count_call(model, lambda name=name: read(name)).operations for name, model in self.encoders.items())

    @cached_property
    def encode_references(self) -> int:
        """Operations of the autoencoder for one task's references."""
        return self.references * self.encode(self._side * self._pixels_per_token)

    def encode(self, height: int, width: int = 0) -> int:
        """Operations of the autoencoder for one picture; ``width`` 0 is a square."""
        pixels = self.codec.pixels(torch.empty(1, 3, height, width or height, device="meta")).shape
        return count_call(self.autoencoder, lambda: self.autoencoder.encode(torch.empty(pixels))).operations

    @cached_property
    def encode_picture(self) -> int:
        """Operations of the autoencoder for one picture of the policy's size."""
        return self.encode(self.settings.height, self.settings.width)

    @property
    def decoded_at_once(self) -> int:
        """Pictures of the policy's size that go through the autoencoder together."""
        return self.codec.at_once(self.settings.height * self.settings.width)

    @cached_property
    def decode(self) -> Counted:
        """What decoding one picture takes, in float32."""
        scale = self.codec.pixels_per_latent
        size = self.settings.height // scale, self.settings.width // scale
        latents = self.codec.raw(torch.empty(1, self.codec.channels, *size, device="meta")).shape
        return count_call(self.autoencoder, lambda: self.autoencoder.decode(torch.empty(latents)))

    @cached_property
    def trained(self) -> int:
        """Parameters of the adapter."""
        return self._whole(self._each(lambda empty: {"trained": _trained(empty)}))["trained"]

    @cached_property
    def condition_numbers(self) -> int:
        """Numbers in one sample's condition."""
        empty = self._shallow[""]
        with self._made_up(empty):
            condition = self.condition(empty.policy)
            return sum(value.numel() for value in vars(condition).values() if isinstance(value, torch.Tensor))

    @cached_property
    def _base(self) -> dict[str, int]:
        """Operations of a forward without the adapter: of a prefix, and of one sample."""

        def count(empty: EmptyPolicy) -> dict[str, int]:
            with (
                self._made_up(empty) as meter,
                empty.policy.reference(),
                torch.no_grad(),
                empty.policy.shared_prefix(self.condition(empty.policy)) as cond,
            ):
                prefix = meter.operations
                self._velocity(empty.policy, cond)
            return {"prefix": prefix, "sample": meter.operations - prefix}

        return self._whole(self._each(count))

    @cached_property
    def base(self) -> int:
        """Operations of one sample's forward without the adapter, and without a prefix that it shares."""
        return self._base["sample"]

    @cached_property
    def operations(self) -> Operations:
        """Of one sample, without a prefix that it shares."""
        return self._operations("", self.base, self.samples)

    @cached_property
    def prefix(self) -> Operations:
        """Of what all samples of a task share; zero for most families."""
        return self._operations("prefix ", self._base["prefix"], 1)

    def _operations(self, part: str, base: int, samples: int) -> Operations:
        shallow = self._update(self.samples, "off")
        whole = self._whole(shallow)
        forward, backward = (whole[part + name] // samples for name in ("forward", "backward"))
        blocks = sum(n * _of_a_block(shallow, key, f"{part}forward") for key, n in self.depth.items()) // samples
        return Operations(base, forward, backward, {"off": 0, "selective": forward - base, "full": blocks})

    def activations(self, samples: int, mode: Checkpointing) -> Activations:
        """Of one forward and backward of ``samples`` samples.

        At work are blocks, what checkpointing computes again of one, and the copies that autocast makes of the adapter.
        """
        shallow = self._update(samples, mode)
        whole, behind = self._whole(shallow), max(counted["behind"] for counted in shallow.values())
        return Activations(whole["kept"], max(whole["ahead"], behind))

    @cache  # noqa: B019 - counted policies stay as long as the process
    def _update(self, samples: int, mode: Checkpointing) -> dict[str, dict[str, int]]:
        """Of each shallow policy: the operations of a forward and its backward, and those of its prefix; the bytes that
        both forwards keep, and those at work beyond them in the forward (ahead) and in the backward (behind)."""

        def count(empty: EmptyPolicy) -> dict[str, int]:
            set_checkpointing(empty.transformer, mode)
            with self._made_up(empty) as meter, empty.policy.shared_prefix(self.condition(empty.policy, meter)) as cond:
                prefix = meter.operations
                if self.family.has_prefix:  # the gradients that other micro-batches have left at it
                    self._velocity(empty.policy, cond.repeat(samples)).float().square().sum().backward()
                begin, meter.peak = meter.operations, meter.now
                velocity_NLC = self._velocity(empty.policy, cond.repeat(samples))
                turn, kept, ahead = meter.operations, meter.now, meter.peak
                meter.peak = kept
                velocity_NLC.float().square().sum().backward()
                end, behind = meter.operations, meter.peak - kept
            own = {"forward": turn - begin, "backward": end - turn}
            shared = {"prefix forward": prefix, "prefix backward": meter.operations - end}
            return own | shared | {"kept": kept, "ahead": ahead - kept, "behind": behind}

        return self._each(count)

    @cache  # noqa: B019 - counted policies stay as long as the process
    def sampling(self, samples: int) -> int:
        """Bytes at work in a forward of ``samples`` samples without a backward, without the adapter's copies."""
        empty = self._shallow[""]
        with self._made_up(empty) as meter, torch.no_grad():
            self._velocity(empty.policy, self.condition(empty.policy).repeat(samples))
        return meter.peak - _trained(empty) * self.copied

    def _velocity(self, policy: Any, cond: Any) -> torch.Tensor:
        x_NLC, sigma_N = torch.empty(len(cond), *policy.latent_shape), torch.empty(len(cond))
        return policy.velocity(x_NLC, sigma_N, cond)

    def condition(self, policy: Any, meter: Meter | None = None) -> Any:
        """Of a made-up prompt and references, without a negative prompt. It belongs to no count of ``meter``."""
        side = self._side * self._pixels_per_token
        pictures = (Image.new("RGB", (side, side)),) * self.references
        (condition,) = policy.encode_parts(Batch(("",), ("",), (pictures,), ("",)), [[0]])
        if meter:
            meter.restart()
        return condition

    @property
    def copied(self) -> int:
        """Bytes of autocast's copy of one number of the adapter."""
        return 2 if self.settings.dtype == "bfloat16" else 0

    @contextmanager
    def _made_up(self, empty: EmptyPolicy) -> Iterator[Meter]:
        """Its transformer made up, with gradients that other updates have left."""
        with made_up(empty.transformer, like_autocast=bool(self.copied)) as meter:
            for parameter in empty.policy.trainable_parameters().values():
                parameter.grad = torch.zeros_like(parameter)
            meter.restart()
            yield meter

    @cached_property
    def _shallow(self) -> dict[str, EmptyPolicy]:
        """Policies with one block of each kind (""), and with one more of each kind, by its key; with an adapter."""
        more: dict[str, dict[str, int]] = {"": {}, **{key: {key: 2} for key in self.depth}}
        found = {key: self.empty({kind: 1 for kind in self.depth} | blocks) for key, blocks in more.items()}
        for empty in found.values():
            empty.policy.add_adapter(self.settings.rank, 0)
        return found

    def _each(self, count: Callable[[EmptyPolicy], dict[str, int]]) -> dict[str, dict[str, int]]:
        return {key: count(empty) for key, empty in self._shallow.items()}

    def _whole(self, shallow: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
        """Those counts at the transformer's whole depth."""
        return {
            name: value + sum((n - 1) * _of_a_block(shallow, key, name) for key, n in self.depth.items())
            for name, value in shallow[""].items()
        }


def _of_a_block(shallow: Mapping[str, Mapping[str, int]], key: str, name: str) -> int:
    return shallow[key][name] - shallow[""][name]


def _trained(empty: EmptyPolicy) -> int:
    return sum(parameter.numel() for parameter in empty.policy.trainable_parameters().values())


_NO_MATTER = (
    "attention", "checkpointing", "offload", "compile", "quantise", "guidance", "evaluation_guidance",
    "guidance_gradient", "start", "start_mode", "base_differs", "evaluation_lora",
)  # fmt: skip
_COUNTED: dict[tuple[str, int], CountedPolicy] = {}


def count_policy(settings: PolicySettings, references: int, samples: int = 1) -> CountedPolicy:
    """The policy that ``settings`` name, counted once per process whatever else they say."""
    defaults = {key: PolicySettings.model_fields[key].default for key in _NO_MATTER} | {"guidance": 1.0}
    several = settings.several_size if references > 1 else 0
    settings = settings.model_copy(update=defaults | {"several_size": several})
    key = settings.model_dump_json(), references
    if key not in _COUNTED:
        _COUNTED[key] = CountedPolicy(settings, references, samples)
    return _COUNTED[key]
