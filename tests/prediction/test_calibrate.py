"""Calibration computes as many blocks at once as a worker does."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

import volseg
import volseg.prediction.calibrate
from volseg.inference import Load
from volseg.pipeline import BlockReport
from volseg.prediction.calibrate import measure_blocks
from volseg.storage import VolumeRef, read_record
from volseg.testing.factories import make_volume

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_as_many_blocks_as_a_worker_holds_are_done_side_by_side(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = np.full((1, 64, 256), 7, np.uint8)
    voxels[:, 9, [9, 200, 250]] = 200  # blocks 1 and 2 of four show nothing
    raw, target = make_volume(tmp_path / "raw.zarr", voxels.shape, voxels=voxels), tmp_path / "p.zarr"
    volseg.predict(str(raw), str(target), model=str(small_model), block=(1, 64, 64), cluster="serial", halo=(0, 0, 0))
    together = threading.Barrier(2, timeout=60)
    done: list[int] = []
    forgotten: list[int] = []

    def process(number: int, pipeline: Any) -> BlockReport:
        assert len(forgotten) == 1
        together.wait()  # neither goes on without the other
        done.append(number)
        time.sleep(0.2)
        return BlockReport(number, 64 * 64, "", 0.1, 0.1)

    monkeypatch.setattr(volseg.prediction.calibrate, "process_block", process)
    monkeypatch.setattr(volseg.prediction.calibrate, "reset_peak_memory", lambda: forgotten.append(1))
    load = Load(1, "float32", 1, slots=2, device="cpu")
    began = time.perf_counter()
    made = measure_blocks(read_record(target), VolumeRef(str(raw)), (str(small_model),), [[(7.0, 1.0)]], range(4), load)
    assert sorted(done) == [0, 3]
    assert 0.1 <= made.seconds <= (time.perf_counter() - began) / 2
    assert made.voxels == 64 * 64
