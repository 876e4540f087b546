"""Hardware of a worker, queried on the worker: that of a login node may differ."""

from __future__ import annotations

import os
import socket
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from volseg.errors import ConfigError
from volseg.malloc import trim
from volseg.system import UNLIMITED, available_cpus, batch_job, free_in_job, free_of_own_limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.inference.settings import Device, Engine, Precision


_ONEDNN_LIMITS = (
    "SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI", "AVX512_CORE_BF16",
    "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX512_CORE_AMX_FP16",
)  # fmt: skip
"""Limits of oneDNN's instruction set, in ascending order; it ignores unknown ones."""
_SCARCE_FACTOR = 2
"""Free memory is scarce below this multiple of the process's own: then its freed memory counts."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Hardware of one worker.

    Attributes:
        host: its name.
        cpus: cores that the process may use.
        memory: free bytes on the machine.
        device: `cuda` if a GPU is visible.
        gpu: its UUID; empty on a CPU.
        device_memory: free bytes on the GPU; 0 on a CPU.
        fast_bfloat16: the hardware computes in bfloat16.
        kind: name of the GPU, or `cpu` and its instruction set: what rounds alike and takes the same time.
        torch: version.
        own_memory: free bytes below the process's own limits (`ulimit -v`), which it shares with no other.
        job_memory: free bytes below the limits of the process's control group and of its job.
        job: of a batch system, whose processes on a host share its limits; empty outside of one.
        task: of that job, whose processes share its cores.
    """

    host: str
    cpus: frozenset[int]
    memory: int
    device: Device
    gpu: str
    device_memory: int
    fast_bfloat16: bool
    kind: str = ""
    torch: str = ""
    own_memory: int = UNLIMITED
    job_memory: int = UNLIMITED
    job: str = ""
    task: str = ""


def worker_info(device: Literal["auto", "any", "cpu", "cuda"] = "auto") -> WorkerInfo:
    """Query the hardware of this process.

    Raises:
        ConfigError: the device is `cuda` and no GPU is visible.
    """
    import torch  # noqa: PLC0415 - the driver imports this module without torch

    gpu = device != "cpu" and torch.cuda.is_available()
    if gpu and torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # unused memory of an earlier run is free
    if device == "cuda" and not gpu:
        raise ConfigError(f"device cuda: no CUDA device is visible on {socket.gethostname()}; use device cpu")
    memory, job_memory = _free_memory()
    job, task = batch_job()
    return WorkerInfo(
        host=socket.gethostname(),
        cpus=available_cpus(),
        memory=memory,
        device="cuda" if gpu else "cpu",
        gpu=str(torch.cuda.get_device_properties(0).uuid) if gpu else "",
        device_memory=torch.cuda.mem_get_info()[0] if gpu else 0,
        fast_bfloat16=torch.cuda.is_bf16_supported(including_emulation=False) if gpu else _cpu_has_bfloat16(),
        kind=device_kind("cuda" if gpu else "cpu"),
        torch=str(torch.__version__),
        own_memory=free_of_own_limits(),
        job_memory=job_memory,
        job=job,
        task=task,
    )


def _free_memory() -> tuple[int, int]:
    """Free bytes of machine and job; memory that this process has freed but kept counts if memory is scarce."""
    if min(_available()) <= _SCARCE_FACTOR * psutil.Process().memory_info().rss:
        trim()
    return _available()


def _available() -> tuple[int, int]:
    return int(psutil.virtual_memory().available), free_in_job()


def memory_of_each(workers: Sequence[WorkerInfo]) -> int:
    """Bytes of main memory that each worker may use: its share of its host's, and of its job's on that host."""
    on_host = Counter(worker.host for worker in workers)
    in_job = Counter((worker.host, worker.job) for worker in workers)
    shares = (
        min(one.memory // on_host[one.host], one.job_memory // in_job[one.host, one.job], one.own_memory)
        for one in workers
    )
    return min(shares)


def threads_per_worker(workers: Sequence[WorkerInfo]) -> int:
    """Threads of a forward pass, so that the workers of each host, or task of a job, together use at most its cores."""
    hosts: dict[tuple[str, str], list[WorkerInfo]] = {}
    for worker in workers:
        hosts.setdefault((worker.host, worker.task), []).append(worker)
    return max(1, min(len(frozenset().union(*(w.cpus for w in group))) // len(group) for group in hosts.values()))


def _cpu_has_bfloat16() -> bool:
    """AVX512-BF16 or AMX, by the flags that Linux states and the instruction sets in force."""
    import torch  # noqa: PLC0415 - the driver imports this module without torch

    flags = _of_processor("flags").split()
    in_hardware = ("avx512_bf16" in flags and _onednn_may("AVX512_CORE_BF16")) or (
        "amx_bf16" in flags and _onednn_may("AVX512_CORE_AMX")
    )
    return in_hardware and torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def _onednn_limit() -> str:
    """What oneDNN is held to by the environment, in capitals; empty where by nothing."""
    asked = (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "").upper()
    return asked if asked in _ONEDNN_LIMITS or asked.startswith("AVX10_") else ""


def _onednn_may(use: str) -> bool:
    """Whether its limit lets oneDNN use an instruction set; AVX10 has all of them but AMX, unless it names it."""
    limit = _onednn_limit()
    if limit in _ONEDNN_LIMITS:
        return _ONEDNN_LIMITS.index(use) <= _ONEDNN_LIMITS.index(limit)
    return not limit or "AMX" in limit or "AMX" not in use


def instruction_set() -> str:
    """What this processor computes with: torch's choice, or `ATEN_CPU_CAPABILITY`, and oneDNN's limit where it has one.

    Another one rounds otherwise, and takes other times.
    """
    import torch  # noqa: PLC0415 - the driver imports this module without torch

    limit = _onednn_limit()
    return torch.backends.cpu.get_cpu_capability() + (f", oneDNN {limit}" if limit else "")


def _of_processor(what: str) -> str:
    """A field of the first processor in /proc/cpuinfo; empty if there is none, as on macOS."""
    try:
        with Path("/proc/cpuinfo").open() as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith(what)), "")
    except OSError:
        return ""


def device_name(engine: Engine) -> str:
    """Name of the device and version of torch: equal names may share measured times."""
    import torch  # noqa: PLC0415 - the driver imports this module without torch

    on_cpu = f"{_of_processor('model name')}, {instruction_set()}"
    name = torch.cuda.get_device_name() if engine.device == "cuda" else on_cpu
    return f"{name}, torch {torch.__version__}"


def device_kind(device: Device) -> str:
    """Name of the GPU, or `cpu` and its instruction set."""
    import torch  # noqa: PLC0415 - the driver imports this module without torch

    return str(torch.cuda.get_device_name()) if device == "cuda" else f"cpu {instruction_set()}"


def device_here(device: Literal["any", "cpu", "cuda"]) -> Device:
    """The device of a run in this process: of `any` the GPU, if there is one."""
    import torch  # noqa: PLC0415 - the driver imports this module without torch

    if device == "any":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def worker_kind(engine: Engine) -> str:
    """What computes: device, instruction set of a CPU, precision. Another kind rounds otherwise."""
    return f"{device_kind(engine.device)}, {engine.precision}"


def choose_precision(
    requested: Literal["auto", "float32", "bfloat16", "float16"],
    workers: Sequence[WorkerInfo],
    on_gpus: Precision = "bfloat16",
) -> Precision:
    """The precision of all workers of a run.

    `auto` gives `on_gpus` if all workers have a GPU, else bfloat16 if all have it in hardware, else float32.

    Args:
        requested: by the user.
        workers: of the run.
        on_gpus: `auto` on GPUs; float16 has three bits more than bfloat16, for networks whose values are known to stay
            below 65,504.

    Raises:
        ConfigError: float16 on a CPU, where it is slower than float32.
    """
    if requested == "auto" and on_gpus == "float16" and all(worker.device == "cuda" for worker in workers):
        return "float16"
    if requested == "auto":
        return "bfloat16" if all(worker.fast_bfloat16 for worker in workers) else "float32"
    if requested == "float16" and any(worker.device == "cpu" for worker in workers):
        raise ConfigError("precision float16 needs a CUDA device; use bfloat16 or float32 on a CPU")
    return requested
