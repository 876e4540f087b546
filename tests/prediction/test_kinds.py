"""Workers of several kinds share a run: each has its own tile, listed in the record, and equal bytes within it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest

import volseg
from volseg.cluster import SerialExecutor
from volseg.config import PredictConfig, validate
from volseg.errors import ConfigError
from volseg.inference import WorkerInfo, worker_info
from volseg.inference.memory.plan import MemoryPlan
from volseg.prediction.autotune import tuner as tuners
from volseg.prediction.autotune.tile import TileConfig
from volseg.prediction.prepare import prepare
from volseg.prediction.resolve import resolve_run
from volseg.storage import journal_folder, open_pyramid, read_marks, read_record
from volseg.testing.doubles import NoteRecorder
from volseg.testing.factories import make_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from volseg.blocks import BlockGrid
    from volseg.storage import RunRecord

TILES = {"big": ((1, 32, 32), 4), "small": ((1, 16, 16), 1), "cpu AVX2": ((1, 32, 32), 1)}


class UnlikeWorkers(SerialExecutor):
    """Workers of several kinds, all of them this process.

    Args:
        infos: of each worker, by its name.
    """

    infos: dict[str, WorkerInfo]
    left_out: set[str]

    def __init__(self, infos: dict[str, WorkerInfo]) -> None:
        super().__init__(workers=tuple(infos))
        object.__setattr__(self, "infos", infos)
        object.__setattr__(self, "left_out", set())

    def run_on_each(self, call: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        if call is worker_info:
            device = arguments[0]
            return {
                name: replace(info, device="cpu", kind="cpu AVX2") if device == "cpu" else info
                for name, info in self.infos.items()
            }
        return {name: call(*arguments) for name in self.infos if name not in self.left_out}

    def run_on_all(self, call: Callable[..., Any], *arguments: Any) -> list[Any]:
        return [*self.run_on_each(call, *arguments).values()]

    def leave_out(self, worker: str) -> bool:
        self.left_out.add(worker)
        return True


def info(kind: str) -> WorkerInfo:
    device: Any = "cpu" if kind.startswith("cpu") else "cuda"
    return replace(worker_info("cpu"), kind=kind, device=device, device_memory=0 if device == "cpu" else 1 << 34)


@pytest.fixture
def resolved(raw: Path, small_model: Path, tmp_path: Path) -> Callable[..., tuple[RunRecord, Any, list[str]]]:
    """Resolves a run on workers of some kinds; all compute on the CPU, and tiles are chosen by a table."""

    def choose(files: Any, grid: BlockGrid, tilings: Any, load: Any, free: Any, engine: Any) -> tuple[TileConfig, ...]:
        kind = "cpu AVX2" if load.device == "cpu" else next(k for k in ("big", "small") if free[1] == memory[k])
        core, batch = TILES[kind]
        return (TileConfig(core, batch, mock.Mock(spec=MemoryPlan)),)

    memory: dict[str, int] = {}

    def call(kinds: Sequence[str], device: str = "auto") -> tuple[RunRecord, Any, list[str]]:
        infos = {f"{kind} {at}": info(kind) for at, kind in enumerate(kinds)}
        for at, kind in enumerate(("big", "small")):
            memory[kind] = (1 << 34) >> at
            for name in infos:
                if name.startswith(kind):
                    infos[name] = replace(infos[name], device_memory=memory[kind], gpu=name)
        values = {
            "source": str(raw), "target": str(tmp_path / "p.zarr"), "model": (str(small_model),), "halo": (0, 8, 8),
            "block": (2, 32, 32), "cluster": "serial", "precision": "float32", "device": device,
        }  # fmt: skip
        spec, _ = prepare(validate(PredictConfig, values, "predict"))
        executor, notes = UnlikeWorkers(infos), NoteRecorder()
        with (
            mock.patch.object(tuners, "choose_tiles", choose),
            mock.patch.object(
                tuners,
                "guard",
                lambda probes, grid, executor: [mock.Mock(fault=None, note="", entry=None) for _ in probes],
            ),
        ):
            record, _ = resolve_run(spec, None, executor, notes)
        return record, executor, notes.lines

    return call


def test_each_kind_of_gpu_has_its_own_tile(resolved: Callable[..., Any]) -> None:
    record, executor, notes = resolved(["small", "big", "small"])
    (entry,) = record.models
    assert (entry.tile, entry.batch) == TILES["small"]  # of most workers
    assert {each.kind: (each.tile, each.batch) for each in entry.kinds} == {k: TILES[k] for k in ("small", "big")}
    assert (entry.of_kind("big").tiling.core, entry.of_kind("big").batch) == TILES["big"]
    assert entry.of_kind("one that joins later") == entry
    assert (record.settings.device, executor.left_out, notes) == ("cuda", set(), [])


def test_workers_without_a_gpu_are_left_out_beside_others_which_is_said(resolved: Callable[..., Any]) -> None:
    record, executor, notes = resolved(["cpu AVX2", "big", "cpu AVX2"])
    assert (record.settings.device, executor.left_out) == ("cuda", {"cpu AVX2 0", "cpu AVX2 2"})
    assert notes == ["2 workers without a GPU, such as cpu AVX2 0, get no blocks; --device any uses them too"]
    assert record.models[0].kinds == ()


def test_any_device_takes_both(resolved: Callable[..., Any]) -> None:
    record, executor, notes = resolved(["cpu AVX2", "big"], "any")
    assert (record.settings.device, executor.left_out, notes) == ("any", set(), [])
    assert {each.kind: each.batch for each in record.models[0].kinds} == {"cpu AVX2": 1, "big": 4}


def test_a_gpu_that_no_worker_has_is_refused(resolved: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def refuse(self: Any, call: Any, *arguments: Any) -> list[Any]:
        return [call(*arguments)]

    monkeypatch.setattr(UnlikeWorkers, "run_on_all", refuse)
    with pytest.raises(ConfigError, match="no CUDA device"):
        resolved(["cpu AVX2"], "cuda")


@contextmanager
def workers_of_two_kinds(folder: Path) -> Iterator[str]:
    """A scheduler, and two workers on it whose CPUs have, by their own word, other instruction sets."""
    from distributed import Client

    module, file = [sys.executable, "-m"], ["--scheduler-file", str(folder / "scheduler.json"), "--no-dashboard"]
    slots = ["--nthreads", "2", "--resources", "slot=2", "--memory-limit", "0", "--no-nanny"]
    commands: list[tuple[list[str], dict[str, str]]]
    commands = [([*module, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", *file], {})]
    for capability in ("avx2", "default"):
        environment = {"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "1"}
        commands.append(([*module, "distributed.cli.dask_worker", *file, *slots], environment))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command, environment in commands:
            processes.append(subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL))
        until = time.monotonic() + 60
        while not (folder / "scheduler.json").exists():
            assert time.monotonic() < until
            time.sleep(0.1)
        with Client(scheduler_file=str(folder / "scheduler.json"), timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            address = str(client.scheduler.address)
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(timeout=30)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_kinds_of_cpus_share_a_map_and_each_writes_the_bytes_of_its_kind(small_model: Path, tmp_path: Path) -> None:
    raw, target = make_volume(tmp_path / "raw.zarr", (8, 128, 128)), tmp_path / "both.zarr"
    options: dict[str, Any] = {"model": str(small_model), "block": (1, 32, 32), "halo": (0, 8, 8), "levels": 0,
                               "precision": "float32", "device": "cpu"}  # fmt: skip
    with workers_of_two_kinds(tmp_path) as address:
        done = volseg.predict(str(raw), str(target), cluster=address, **options)
    assert done.done == 128
    record = read_record(target)
    kinds = {each.kind: each for each in record.models[0].kinds}
    assert set(kinds) == {"cpu AVX2", "cpu DEFAULT"}
    marks = {mark.block: mark.worker.partition(", ")[2] for mark in read_marks(journal_folder(target))}
    assert set(Counter(marks.values())) == {f"{kind}, float32" for kind in kinds}
    both = open_pyramid(target, record).finest[0]
    for capability in ("avx2", "default"):
        one, kind = tmp_path / f"{capability}.zarr", kinds[f"cpu {capability.upper()}"]
        words = [sys.executable, "-c", f"import volseg; volseg.predict({str(raw)!r}, {str(one)!r}, cluster='serial', "
                 f"tile={kind.tile}, **{options!r})"]  # fmt: skip
        subprocess.run(words, check=True, env=os.environ | {"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "1"})
        alone = open_pyramid(one, read_record(one)).finest[0]
        own = [number for number, name in marks.items() if name == f"{kind.kind}, float32"]
        assert own
        for number in own:
            box = record.grid.box(number)
            np.testing.assert_array_equal(both.read(box), alone.read(box))
