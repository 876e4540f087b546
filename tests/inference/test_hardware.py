"""Hardware of workers, and the settings that follow from it."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psutil
import pytest
import torch

from volseg import malloc, system
from volseg.errors import ConfigError
from volseg.inference import (
    Engine,
    WorkerInfo,
    choose_precision,
    hardware,
    memory_of_each,
    peak_memory,
    reset_peak_memory,
    threads_per_worker,
    worker_info,
)
from volseg.inference.memory import peak

if TYPE_CHECKING:
    from pathlib import Path


def worker(host: str = "a", cpus: int = 8, first: int = 0, device="cpu", fast: bool = False) -> WorkerInfo:
    return WorkerInfo(host, frozenset(range(first, first + cpus)), 1 << 30, device, "", 0, fast)


@pytest.mark.parametrize(
    ("workers", "threads"),
    [
        ([worker()], 8),
        ([worker(), worker()], 4),
        ([worker(), worker(), worker()], 2),
        ([worker("a"), worker("b"), worker("b")], 4),
        ([worker(cpus=4), worker(cpus=4, first=4)], 4),  # pinned to different cores
        ([worker(cpus=1), worker(cpus=1), worker(cpus=1)], 1),
    ],
)
def test_the_threads_of_all_workers_never_exceed_a_hosts_cores(workers, threads) -> None:
    assert threads_per_worker(workers) == threads


def test_auto_precision_is_bfloat16_if_all_workers_compute_it_in_hardware() -> None:
    assert choose_precision("auto", [worker(fast=True), worker(fast=True)]) == "bfloat16"
    assert choose_precision("auto", [worker(fast=True), worker()]) == "float32"
    assert choose_precision("bfloat16", [worker()]) == "bfloat16"
    assert choose_precision("float16", [worker(device="cuda")]) == "float16"
    assert choose_precision("auto", [worker(device="cuda")], on_gpus="float16") == "float16"
    assert choose_precision("auto", [worker(device="cuda"), worker()], on_gpus="float16") == "float32"
    assert choose_precision("auto", [worker(fast=True)], on_gpus="float16") == "bfloat16"
    assert choose_precision("auto", [worker(device="cuda", fast=True)]) == "bfloat16"


def test_float16_on_a_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="precision float16 needs a CUDA device"):
        choose_precision("float16", [worker(device="cuda"), worker()])


def test_worker_info_describes_this_machine() -> None:
    info = worker_info("cpu")
    assert info.cpus == frozenset(os.sched_getaffinity(0))
    assert 0 < info.memory < 1 << 50
    assert (info.device, info.device_memory) == ("cpu", 0)


BOTH = "avx2 avx512f avx512_bf16 amx_bf16"


@pytest.mark.parametrize(
    ("flags", "onednn", "torch_uses", "fast"),
    [
        (BOTH, None, "AVX512", True),
        ("avx2 avx512f", None, "AVX512", False),
        (BOTH, None, "AVX2", False),
        (BOTH, None, "DEFAULT", False),
        (BOTH, "SSE41", "AVX512", False),
        (BOTH, "avx2", "AVX512", False),
        (BOTH, "AVX2_VNNI_2", "AVX512", False),
        (BOTH, "AVX512_CORE_VNNI", "AVX512", False),
        (BOTH, "AVX512_CORE_BF16", "AVX512", True),
        ("avx512f amx_bf16", "AVX512_CORE_FP16", "AVX512", False),
        ("avx512f amx_bf16", "AVX512_CORE_AMX", "AVX512", True),
        ("avx512f amx_bf16", "AVX10_1_512", "AVX512", False),
        ("avx512f amx_bf16", "AVX10_1_512_AMX", "AVX512", True),
        ("avx512_bf16", "AVX10_1_512", "AVX512", True),
        (BOTH, "ALL", "AVX512", True),
        (BOTH, "DEFAULT", "AVX512", True),
        (BOTH, "", "AVX512", True),
    ],
)
def test_bfloat16_is_fast_only_if_processor_and_limits_allow_it(
    monkeypatch: pytest.MonkeyPatch, flags: str, onednn: str | None, torch_uses: str, fast: bool
) -> None:
    monkeypatch.setattr(hardware, "_of_processor", lambda what: flags)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: torch_uses)
    hold(monkeypatch, onednn)
    assert worker_info("cpu").fast_bfloat16 == fast


def hold(monkeypatch: pytest.MonkeyPatch, onednn: str | None) -> None:
    """Hold oneDNN to an instruction set, as far as the environment says so."""
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    if onednn is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", onednn)


def test_the_instruction_set_in_force_is_part_of_the_device_that_times_were_measured_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine("cpu", "float32", 1, 1)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    hold(monkeypatch, None)
    assert hardware.instruction_set() == "AVX2"
    free = hardware.device_name(engine)
    hold(monkeypatch, "sse41")
    assert hardware.instruction_set() == "AVX2, oneDNN SSE41"
    held = hardware.device_name(engine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert len({free, held, hardware.device_name(engine)}) == 3


def test_a_gpu_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        assert worker_info("cuda").device == "cuda"
    else:
        with pytest.raises(ConfigError, match="device cuda: no CUDA device is visible"):
            worker_info("cuda")


@pytest.mark.parametrize(("free", "trimmed"), [(1 << 50, False), (1 << 20, True)])
def test_freed_memory_of_an_earlier_run_counts_as_free_if_memory_is_scarce(
    monkeypatch: pytest.MonkeyPatch, free: int, trimmed: bool
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(hardware, "trim", lambda: calls.append("trim"))
    monkeypatch.setattr(hardware, "free_in_job", lambda: free + len(calls))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1 << 60))
    assert worker_info("cpu").job_memory == free + trimmed
    assert bool(calls) == trimmed


def test_a_platform_without_affinity_proc_and_mallopt_falls_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As macOS: no sched_getaffinity, no /proc, another C library."""
    missing = tmp_path / "missing"
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(hardware, "Path", lambda _: missing)
    monkeypatch.setattr(system, "_CGROUPS", missing)
    monkeypatch.setattr(peak, "_STATUS", missing / "status")
    monkeypatch.setattr(peak, "_CLEAR_REFS", missing / "clear_refs")
    monkeypatch.setattr(sys, "platform", "darwin")
    info = worker_info("cpu")
    assert info.cpus == {0, 1, 2}
    assert 0 < info.memory < 1 << 50
    assert not info.fast_bfloat16
    assert hardware.device_name(Engine("cpu", "float32", 1, 1)).endswith(f"torch {torch.__version__}")
    reset_peak_memory()
    assert peak_memory("cpu") == (0, 0)
    assert not malloc.retain_heap()
    with malloc.mmap_large_blocks():
        pass
    malloc.release_heap()


def test_workers_share_the_memory_of_their_host_and_that_of_their_job() -> None:
    def worker(job: str, job_memory: int) -> WorkerInfo:
        cpus = frozenset({0})
        return WorkerInfo("n1", cpus, 96, "cpu", "", 0, False, job_memory=job_memory, job=job, task=f"{job}.0.0")

    assert memory_of_each([worker("1", 32), worker("2", 32)]) == 32
    assert memory_of_each([worker("1", 32), worker("1", 32), worker("2", 40)]) == 16
    assert memory_of_each([worker("1", 90), worker("2", 90), worker("3", 90)]) == 32
    # Two jobs of one core each on one host: each computes with its own.
    assert threads_per_worker([worker("1", 32), worker("2", 32)]) == 1
