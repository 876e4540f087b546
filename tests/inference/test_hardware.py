"""What workers say of themselves, and what follows for a run."""

from __future__ import annotations

import os
from types import SimpleNamespace

import psutil
import pytest
import torch

from volseg.errors import ConfigError
from volseg.inference import Engine, WorkerInfo, choose_precision, threads_each, worker_info
from volseg.inference import hardware as looked


def facts(host: str = "a", cpus: int = 8, first: int = 0, device="cpu", fast: bool = False) -> WorkerInfo:
    return WorkerInfo(host, frozenset(range(first, first + cpus)), 1 << 30, device, "", 0, fast)


@pytest.mark.parametrize(
    ("workers", "threads"),
    [
        ([facts()], 8),
        ([facts(), facts()], 4),
        ([facts(), facts(), facts()], 2),
        ([facts("a"), facts("b"), facts("b")], 4),
        ([facts(cpus=4), facts(cpus=4, first=4)], 4),  # bound to cores of their own
        ([facts(cpus=1), facts(cpus=1), facts(cpus=1)], 1),
    ],
)
def test_workers_times_threads_never_exceed_a_hosts_cores(workers, threads) -> None:
    assert threads_each(workers) == threads


def test_bfloat16_is_chosen_where_all_have_it() -> None:
    assert choose_precision("auto", [facts(fast=True), facts(fast=True)]) == "bfloat16"
    assert choose_precision("auto", [facts(fast=True), facts()]) == "float32"
    assert choose_precision("bfloat16", [facts()]) == "bfloat16"
    assert choose_precision("float16", [facts(device="cuda")]) == "float16"
    assert choose_precision("auto", [facts(device="cuda")], on_gpus="float16") == "float16"
    assert choose_precision("auto", [facts(device="cuda"), facts()], on_gpus="float16") == "float32"
    assert choose_precision("auto", [facts(fast=True)], on_gpus="float16") == "bfloat16"
    assert choose_precision("auto", [facts(device="cuda", fast=True)]) == "bfloat16"


def test_float16_on_a_processor_is_refused() -> None:
    with pytest.raises(ConfigError, match="precision float16 needs a CUDA device"):
        choose_precision("float16", [facts(device="cuda"), facts()])


def test_this_machine_is_described() -> None:
    here = worker_info("cpu")
    assert here.cpus == frozenset(os.sched_getaffinity(0))
    assert 0 < here.memory < 1 << 50
    assert (here.device, here.device_memory) == ("cpu", 0)


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
def test_bfloat16_is_fast_only_where_processor_and_limits_allow_it(
    monkeypatch: pytest.MonkeyPatch, flags: str, onednn: str | None, torch_uses: str, fast: bool
) -> None:
    monkeypatch.setattr(looked, "_of_processor", lambda what: flags)
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
    assert looked.instruction_set() == "AVX2"
    free = looked.device_name(engine)
    hold(monkeypatch, "sse41")
    assert looked.instruction_set() == "AVX2, oneDNN SSE41"
    held = looked.device_name(engine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert len({free, held, looked.device_name(engine)}) == 3


def test_a_gpu_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        assert worker_info("cuda").device == "cuda"
    else:
        with pytest.raises(ConfigError, match="device cuda: no CUDA device is visible"):
            worker_info("cuda")


@pytest.mark.parametrize(("free", "trimmed"), [(1 << 50, False), (1 << 20, True)])
def test_pages_that_an_earlier_run_left_count_as_free_where_memory_is_scarce(
    monkeypatch: pytest.MonkeyPatch, free: int, trimmed: bool
) -> None:
    told: list[str] = []
    monkeypatch.setattr(looked, "trim", lambda: told.append("trimmed"))
    monkeypatch.setattr(looked, "_free_in_control_group", lambda: free + len(told))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1 << 60))
    assert worker_info("cpu").memory == free + trimmed
    assert bool(told) == trimmed
