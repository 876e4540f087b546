"""What a worker can do, asked on the worker: a login node's hardware says nothing."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import psutil

from volseg.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

Device: TypeAlias = Literal["cpu", "cuda"]
Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """One worker's hardware.

    Attributes:
        host: its name.
        cores: that the process may use.
        memory: bytes that were free for the process.
        device: `cuda` where a GPU is visible.
        device_memory: bytes that were free on it; 0 on a CPU.
        fast_bfloat16: whether bfloat16 is computed in hardware.
    """

    host: str
    cores: int
    memory: int
    device: Device
    device_memory: int
    fast_bfloat16: bool


def worker_facts(device: Literal["auto", "cpu", "cuda"] = "auto") -> WorkerFacts:
    """Look at the hardware of this process.

    Raises:
        ConfigError: a GPU was asked for and none is visible.
    """
    import torch  # noqa: PLC0415 - the driver imports this module without torch

    gpu = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not gpu:
        raise ConfigError(f"--device cuda: no CUDA device is visible on {socket.gethostname()}; use --device cpu")
    return WorkerFacts(
        host=socket.gethostname(),
        cores=len(os.sched_getaffinity(0)),
        memory=psutil.virtual_memory().available,
        device="cuda" if gpu else "cpu",
        device_memory=torch.cuda.mem_get_info()[0] if gpu else 0,
        fast_bfloat16=torch.cuda.is_bf16_supported() if gpu else _cpu_has_bfloat16(),
    )


def _cpu_has_bfloat16() -> bool:
    """AVX512-BF16 or AMX, by the flags that Linux states."""
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123 - a kernel file, not a path of ours
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def choose_precision(
    asked: Literal["auto", "float32", "bfloat16", "float16"], workers: Sequence[WorkerFacts]
) -> Precision:
    """The precision that every worker of a run computes in.

    `auto` is bfloat16 where all workers have it in hardware, else float32.

    Raises:
        ConfigError: float16 on a CPU, where it is slower than float32.
    """
    if asked == "auto":
        return "bfloat16" if all(worker.fast_bfloat16 for worker in workers) else "float32"
    if asked == "float16" and any(worker.device == "cpu" for worker in workers):
        raise ConfigError("--precision float16 needs a CUDA device; use bfloat16 or float32 on a CPU")
    return asked
