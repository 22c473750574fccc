"""A family of another package in one file: pictures cut into patches, a linear velocity, no diffusers."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated
from zlib import crc32

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn

from cgrpo.algorithm import shifted_sigmas
from cgrpo.errors import UserError
from cgrpo.fingerprint import of_tensors
from cgrpo.policies.adapters.files import write_adapter
from cgrpo.policies.base import Policy
from cgrpo.policies.conditions import TensorCondition
from cgrpo.policies.family import Family
from cgrpo.policies.settings import PolicySettings


@dataclass(frozen=True)
class ToyCondition(TensorCondition):
    task_NC: Tensor  # a bag of 8 hashed words, and the mean colour of the references


class ToySettings(PolicySettings):
    height: int = 32
    width: int = 32
    gain: Annotated[float, Field(gt=1)] = 2.0
    """Of the velocity at sigma 0; at 1 it is 1 less, so that some noise stays."""


class ToyPolicy(Policy[ToyCondition]):
    height = width = 32
    dtype, device, latent_shape = torch.float32, torch.device("cpu"), (16, 192)

    def __init__(self, gain: float = 2.0) -> None:
        self.gain = gain
        self.base, self.delta = (nn.Linear(11, 192, bias=False) for _ in range(2))  # the picture: one patch, repeated
        for layer in (self.base.requires_grad_(False), self.delta):
            layer.weight.data = torch.randn(192, 11, generator=torch.Generator().manual_seed(0)) / 4
        self.delta.weight.data.zero_()

    @classmethod
    def make(cls, settings, making):
        policy = cls(settings.gain)
        if making.adapter is not None:
            policy.delta.weight.data = load_file(making.adapter / "toy.safetensors")["delta"]
        return policy

    def noise(self, seed):
        return torch.randn(1, *self.latent_shape, generator=torch.Generator().manual_seed(seed))

    def sigmas(self, steps, shift):
        if isinstance(shift, str):
            raise UserError(f"sampling.shift = {shift!r}: this policy knows numbers")
        return shifted_sigmas(steps, shift)

    def alike(self, batch, most):
        return [part.tolist() for part in torch.arange(len(batch)).split(most)]

    def encode_parts(self, batch, parts):
        return [ToyCondition(torch.stack([self._task(batch, row) for row in part])) for part in parts]

    def _task(self, batch, row):
        words = torch.tensor([crc32(word.encode()) % 8 for word in batch.prompts[row].split()]).bincount(minlength=8)
        colours = [np.asarray(p).reshape(-1, 3).mean(0) / 255 for p in batch.references[row]] or [np.zeros(3)]
        return torch.cat((words.float(), torch.tensor(np.mean(colours, 0)).float()))

    def velocity(self, x_NLC, sigma_N, cond):
        x0_NC = self.base(cond.task_NC) + self.delta(cond.task_NC)
        return (x_NLC - x0_NC[:, None].to(x_NLC)) * (self.gain - sigma_N[:, None, None]).to(x_NLC)

    def encode_targets(self, pictures):
        stack = np.stack([np.asarray(p.resize((32, 32))) for p in pictures])
        return torch.from_numpy(stack).reshape(-1, 4, 8, 4, 8, 3).transpose(2, 3).reshape(-1, 16, 192) / 127.5 - 1

    def decode(self, x_NLC):
        levels = ((x_NLC.detach().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return levels.reshape(-1, 4, 4, 8, 8, 3).transpose(2, 3).reshape(-1, 32, 32, 3)

    def trainable_parameters(self):
        return {"delta": self.delta.weight} if self.delta.weight.requires_grad else {}

    @contextmanager
    def reference(self):
        with self.using({"delta": torch.zeros(192, 11)}):
            self.delta.requires_grad_(False)
            try:
                yield
            finally:
                self.delta.requires_grad_(True)

    def save(self, folder):
        return write_adapter(folder / "toy.safetensors", {"delta": self.delta.weight.detach()}, {})

    def pictures_depend_on(self):
        return {"weights": of_tensors([("base", self.base.weight), ("delta", self.delta.weight)])}

    def shard(self, spread):
        spread([self.base], [self.delta.weight])


FAMILY = Family(policy="support.toy_policy:ToyPolicy", settings="support.toy_policy:ToySettings")
