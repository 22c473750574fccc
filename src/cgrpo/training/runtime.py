"""Processes and devices; the only importer of accelerate. Everything else is written as for one process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from cgrpo.errors import UserError
from cgrpo.extensions import is_installed
from cgrpo.launch import clean_environment
from cgrpo.section import dotted


class Runtime:
    """This process among ``world``. One process is the case world = 1, not a special one."""

    def __init__(self, tracker: str = "none", folder: Path | None = None):
        if tracker != "none" and not is_installed(tracker):
            cure = f"pip install {tracker}, or choose another with --set logging.tracker=none"
            raise UserError(f"logging.tracker = {tracker!r}: the package is not installed; {cure}")
        clean_environment()  # half a launch would be a traceback of torch's
        self._accelerator = Accelerator(
            log_with=None if tracker == "none" else tracker, project_dir=folder, cpu=not torch.cuda.is_available()
        )
        self._tracker = "" if tracker == "none" else tracker
        self.rank: int = self._accelerator.process_index
        self.world: int = self._accelerator.num_processes
        self.is_main: bool = self._accelerator.is_main_process
        device = self._accelerator.device
        self.device = torch.device("cpu") if device.type == "cpu" else device  # "cpu:0" is not understood everywhere
        self._signal = 0
        self.sharded = False  # whether the base's blocks are spread over the processes

    def start_tracking(self, folder: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        """Start the tracker: on a service one run of project "cgrpo", named as the run's folder, with its settings.

        A resumed run continues its own curves by ``run_id``. TensorBoard writes into the folder.
        """
        if not self._tracker:
            return
        run = {"name": folder.absolute().name, "resume": "allow"}
        services = {"wandb": run | {"id": run_id, "dir": str(folder)}, "trackio": run}
        project = "cgrpo" if self._tracker in services else "tracker"
        values = {key: value for key, value in dotted(settings) if value not in (None, {})}
        plain = {key: value if isinstance(value, int | float | str) else str(value) for key, value in values.items()}
        self._accelerator.init_trackers(project, plain, services)  # takes no lists

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self._tracker:
            self._accelerator.log(dict(values), step=step)

    def local(self, count: int, setting: str) -> range:
        """This process's share of ``count`` items, a run of ``count / world``. UserError where that is no whole one."""
        if count % self.world:
            raise UserError(f"{setting} ({count}) must be divisible by the number of processes ({self.world})")
        share = count // self.world
        return range(self.rank * share, (self.rank + 1) * share)

    def gather(self, values: Tensor) -> Tensor:
        """The processes' tensors, equal in shape, one after another along the first axis."""
        return self._accelerator.gather(values.contiguous()) if self.world > 1 else values  # type: ignore[return-value]

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up the processes' gradients in place; a parameter without one counts as 0."""
        if self.world == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])
        flat = self._accelerator.reduce(flat, reduction="sum")
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):  # type: ignore[union-attr]
            parameter.grad = part.view_as(parameter)

    def shard(self, blocks: Sequence[nn.Module], whole: Collection[nn.Parameter]) -> None:
        """Spread the parameters of ``blocks`` over the processes (FSDP2), but for ``whole``, such as the adapter's.

        The last has the others within it: their common root, without which none would be gathered while another
        computes. A block is whole for its own forward and backward only. Each is moved to this process's device first,
        one at a time. torch's own fully_shard is called, since accelerate ignores its FSDP plugin on a CPU. UserError
        where there is one process.
        """
        if self.world == 1:
            raise UserError("training.parallel = fsdp2 needs several processes: torchrun --nproc_per_node N -m cgrpo")
        mesh = init_device_mesh(self.device.type, (self.world,))
        kept = set(whole)
        for block in blocks:
            ignored = kept & set(block.parameters())
            fully_shard(block.to(self.device), mesh=mesh, reshard_after_forward=True, ignored_params=ignored)
        frozen = [p for block in blocks for p in block.parameters() if p not in kept]
        if not frozen or not all(isinstance(p, DTensor) for p in frozen):
            raise RuntimeError("fsdp2 was asked for, but the base is not sharded")
        self.sharded = True

    @contextmanager
    def noting_signals(self) -> Iterator[None]:
        """Within it SIGTERM, and SIGUSR1 as Slurm's warning before a time limit, are noted alone; a second one acts."""
        before: dict[int, Any] = {}

        def note(number: int, frame: object) -> None:
            self._signal = number
            signal.signal(number, before.get(number, signal.SIG_DFL))

        if threading.current_thread() is threading.main_thread():  # no other can
            for number in (signal.SIGTERM, signal.SIGUSR1):
                before[number] = signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def noted_signal(self) -> int:
        """The signal that some process has noted, the same on all; 0 for none."""
        return self.largest(self._signal)

    def peak_memory(self) -> dict[str, float]:
        """GiB of this process's GPU at their most since the last call; empty without one."""
        if self.device.type != "cuda":
            return {}
        peak = torch.cuda.max_memory_allocated(self.device) / 2**30
        torch.cuda.reset_peak_memory_stats(self.device)
        return {"memory/peak_gib": peak}

    def largest(self, count: int) -> int:
        """The largest of the processes' counts."""
        return int(self.gather(torch.tensor([count], device=self.device)).max())

    def check_agreement(self, parameters: Sequence[nn.Parameter]) -> None:
        """Raise UserError unless all processes hold the same numbers, by a checksum."""
        sums = torch.stack([p.detach().double().sum() + p.detach().double().square().sum() for p in parameters]).sum()
        if not (self.gather(sums.reshape(1)) == sums).all():
            raise UserError(
                "the processes' adapters differ: gradients were not summed alike; resume from the last checkpoint"
            )

    def any(self, flag: bool) -> bool:
        """Whether it is so on any process."""
        return bool(self.gather(torch.tensor([flag], dtype=torch.float32, device=self.device)).sum() > 0)

    def share(self, text: str) -> str:
        """The main process's string, everywhere."""
        if self.world == 1:
            return text
        size: Tensor = broadcast(torch.tensor([len(text.encode())], device=self.device))  # pyright: ignore
        data = torch.zeros(int(size), dtype=torch.uint8, device=self.device)
        if self.is_main:
            data = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.device)
        data: Tensor = broadcast(data)  # pyright: ignore
        return bytes(data.tolist()).decode()

    def wait(self) -> None:
        """Until all processes are here."""
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """End trackers and the process group: one that is left open at exit can end a process by a signal."""
        self._accelerator.end_training()
