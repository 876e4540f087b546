"""Distributed training: one process per device, started by torchrun; or this process alone."""

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

_TIMEOUT = timedelta(hours=2)
"""For collective operations; long, because rank 0 validates while the others wait."""


@dataclass(frozen=True)
class DistributedContext:
    """This process among those of `torchrun --nproc-per-node 4 -m volseg train RUN.toml`.

    Attributes:
        rank: of this process; rank 0 validates and writes.
        world_size: number of processes.
        device: of this process, such as `cuda:1`.
    """

    rank: int
    world_size: int
    device: str

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process validates and writes."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """Wrap a network in DistributedDataParallel; on CUDA its batch norms are synchronised."""
        if self.world_size == 1:
            return network
        if self.device.startswith("cuda"):
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return DistributedDataParallel(network)

    def broadcast(self, value: float) -> float:
        """Send a number from rank 0 to all processes."""
        if self.world_size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(tensor, 0)
        return float(tensor.item())

    def mean(self, value: Tensor) -> float:
        """Average a scalar over all processes."""
        if self.world_size == 1:
            return float(value.item())
        total = value.detach().to(torch.float64)
        distributed.all_reduce(total)
        return float(total.item()) / self.world_size

    def no_sync(self, network: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """Accumulate gradients locally, unless this is the last forward pass of the step."""
        if isinstance(network, DistributedDataParallel) and not last:
            return network.no_sync()
        return nullcontext()


@contextmanager
def init_distributed(device: Literal["auto", "cpu", "cuda"]) -> Iterator[DistributedContext]:
    """Join the process group that torchrun's variables describe, and leave it at the end.

    Args:
        device: on CUDA each process of a machine uses the GPU of its local rank.

    Raises:
        ConfigError: more processes than GPUs, or torchrun's variables are incomplete.
    """
    try:
        world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        local_rank = int(os.environ["LOCAL_RANK"]) if world_size > 1 else 0
    except (KeyError, ValueError):
        raise ConfigError(
            "WORLD_SIZE, RANK and LOCAL_RANK must all be set to numbers, or none; start with torchrun, or unset them"
        ) from None
    if world_size > 1 and device != "cpu" and torch.cuda.is_available():
        gpus = torch.cuda.device_count()
        if local_rank >= gpus:
            raise ConfigError(
                f"local rank {local_rank} has no GPU, this machine has {gpus}; use torchrun --nproc-per-node {gpus}"
            )
        torch.cuda.set_device(local_rank)  # before the first CUDA call, which would take memory of GPU 0
    kind = worker_info(device).device
    if world_size == 1:
        yield DistributedContext(0, 1, kind)
        return
    try:
        distributed.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=_TIMEOUT)
    except ValueError as error:
        raise ConfigError(f"cannot join the process group ({error}); start with torchrun") from error
    try:
        yield DistributedContext(rank, world_size, f"cuda:{local_rank}" if kind == "cuda" else "cpu")
    finally:
        distributed.destroy_process_group()
