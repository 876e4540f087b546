"""A worker retains its heap; a serial run restores malloc in the user's process."""

from __future__ import annotations

import platform
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import volseg
from volseg.cluster import connect
from volseg.prediction import worker
from volseg.testing.doubles import page_faults

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can retain freed memory")


def test_a_serial_run_trims_before_its_networks_open_and_restores_malloc_at_its_end(
    raw: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("release_heap", "retain_heap"):
        monkeypatch.setattr(worker, name, partial(calls.append, name))
    ensemble_of = worker.ensemble_of

    def recorded(*arguments: Any) -> Any:
        calls.append("ensemble_of")
        return ensemble_of(*arguments)

    monkeypatch.setattr(worker, "ensemble_of", recorded)
    volseg.predict(str(raw), str(tmp_path / "p.zarr"), model=str(small_model), cluster="serial", device="cpu")
    assert calls == ["release_heap", "retain_heap", "ensemble_of", "release_heap"]


def test_a_local_worker_reuses_blocks_above_the_limit_of_a_threads_heap() -> None:
    """The heap of a thread ends at 64 MiB: without MALLOC_ARENA_MAX=1, larger blocks come from the system each time."""
    size = 160 << 20
    with connect("local", 1) as cluster:
        cluster.run_on_one(page_faults, size)
        faults = cluster.run_on_one(page_faults, size)
    assert faults < size // 4096 / 10
