"""One training in several processes, a device each, as torchrun starts them; or in this process alone."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from volseg.errors import ConfigError
from volseg.inference.hardware import worker_info

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

_PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the first one validates alone."""


@dataclass(frozen=True)
class Processes:
    """Those that train together: `torchrun --nproc-per-node 4 -m volseg train RUN.toml`.

    Attributes:
        rank: this one's number; the first one, 0, writes, draws and decides.
        size: how many there are.
        device: where this one computes, such as `cuda:1`.
    """

    rank: int
    size: int
    device: str

    @property
    def first(self) -> bool:
        """Whether this one writes, draws and decides."""
        return self.rank == 0

    def wrapped(self, network: nn.Module) -> nn.Module:
        """A network whose gradients are averaged over all processes; on CUDA its batch norms see all of them."""
        if self.size == 1:
            return network
        if self.device.startswith("cuda"):
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return DistributedDataParallel(network)

    def broadcast(self, value: float) -> float:
        """The first process's value, in all of them."""
        if self.size == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(told, 0)
        return float(told.item())

    def mean(self, value: Tensor) -> float:
        """The mean of one number over all processes."""
        if self.size == 1:
            return float(value.item())
        total = value.detach().to(torch.float64)
        distributed.all_reduce(total)
        return float(total.item()) / self.size

    def no_sync(self, network: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """Gradients stay in this process until the last of those that are summed."""
        if isinstance(network, DistributedDataParallel) and not last:
            return network.no_sync()
        return nullcontext()


@contextmanager
def joined(asked: Literal["auto", "cpu", "cuda"]) -> Iterator[Processes]:
    """The processes that this one was started with; leaves them at the end.

    Args:
        asked: where to compute; on CUDA each process of a machine takes the GPU of its number there.

    Raises:
        ConfigError: more processes than GPUs, or torchrun's variables are not whole.
    """
    try:
        size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        local = int(os.environ["LOCAL_RANK"]) if size > 1 else 0
    except (KeyError, ValueError):
        raise ConfigError(
            "WORLD_SIZE, RANK and LOCAL_RANK must all be set to numbers, or none; start with torchrun, or unset them"
        ) from None
    if size > 1 and asked != "cpu" and torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} of this machine has no GPU, there are {torch.cuda.device_count()}; "
                f"use torchrun --nproc-per-node {torch.cuda.device_count()}"
            )
        torch.cuda.set_device(local)  # before anything looks at a GPU, which would take memory of the first
    device = worker_info(asked).device
    if size == 1:
        yield Processes(0, 1, device)
        return
    try:
        distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    except ValueError as error:
        raise ConfigError(f"the processes cannot find each other ({error}); start with torchrun") from error
    try:
        yield Processes(rank, size, f"cuda:{local}" if device == "cuda" else "cpu")
    finally:
        distributed.destroy_process_group()
