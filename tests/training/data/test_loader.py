"""Dataloader: batches do not depend on workers, errors keep their message, and workers exit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
import tifffile

from tests.training.data.test_patches import patches_of, unchanged
from volseg.errors import SourceError
from volseg.storage import open_readable
from volseg.testing.factories import make_volume
from volseg.training.data.labels import LabelEncoding
from volseg.training.data.loader import TimedIterator, load_batches, resolve_workers
from volseg.training.data.patches import PatchDataset
from volseg.training.data.volumes import LabelledVolume


@pytest.fixture
def stored(tmp_path: Path) -> list[LabelledVolume]:
    """The same volume as Zarr, HDF5 and TIFF."""
    raw = np.random.default_rng(0).integers(1, 255, (4, 50, 60)).astype(np.uint8)
    make_volume(tmp_path / "a.zarr", raw.shape, voxels=raw)
    tifffile.imwrite(tmp_path / "a.tif", raw, photometric="minisblack")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = raw
    readers = [open_readable(str(tmp_path / name)) for name in ("a.zarr", "a.h5", "a.tif")]
    encoding = LabelEncoding("membrane", "zero")
    return [LabelledVolume(reader, reader, encoding, (1.0, 1.0, 1.0), ((0, 4),)) for reader in readers]


def test_batches_do_not_depend_on_file_format_and_workers(stored: list[LabelledVolume]) -> None:
    zarr, hdf5, tiff = (patches_of(volume) for volume in stored)
    expected = list(load_batches(zarr, range(5, 16), batch_size=4, workers=0, device="cpu"))
    assert [len(sample.seeds) for sample in expected] == [4, 4, 3]
    assert expected[1].raw.shape == (4, 1, 32, 32)
    mixed = PatchDataset(tuple(stored), unchanged(tuple(stored)), zarr.input_shape, zarr.output_shape, 3)
    for one, workers, reference in [(hdf5, 0, expected), (tiff, 0, expected), (mixed, 2, None)]:
        numbers = range(5, 16)
        expected_batches = reference or list(load_batches(one, numbers, batch_size=4, workers=0, device="cpu"))
        batches = TimedIterator(load_batches(one, numbers, batch_size=4, workers=workers, device="cpu"))
        for sample, other in zip(expected_batches, batches, strict=True):
            assert all(bool((a == b).all()) for a, b in [
                (sample.raw, other.raw), (sample.labels, other.labels), (sample.seeds, other.seeds),
            ])  # fmt: skip
        assert batches.seconds > 0


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_keeps_its_message(workers: int, tmp_path: Path) -> None:
    path = make_volume(tmp_path / "a.zarr", (1, 64, 64), chunk=(1, 64, 64))
    reader = open_readable(str(path))
    volume = LabelledVolume(reader, reader, LabelEncoding(), (1.0, 1.0, 1.0), ((0, 1),))
    for chunk in (path / "0" / "c").rglob("0"):
        if chunk.is_file():
            chunk.write_bytes(b"broken" + chunk.read_bytes()[6:200])
    batches = load_batches(patches_of(volume), range(8), batch_size=2, workers=workers, device="cpu")
    with pytest.raises(SourceError, match=r"^cannot read 0:1,.* of .*a.zarr/0: ") as caught:
        next(batches)
    assert "Traceback" not in str(caught.value)


KILLED = """
import psutil, sys
from tests.training.data.test_patches import coordinates, patches_of
from volseg.training.data.loader import load_batches
if __name__ == "__main__":
    batches = load_batches(patches_of(coordinates((2, 40, 40))), range(1000), batch_size=1, workers=1, device="cpu")
    next(batches)
    print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_workers_exit_if_the_main_process_is_killed(tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    started: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, str(tmp_path / "killed.py")], env=environment, **started) as training:
        assert training.stdout is not None
        children = [psutil.Process(int(pid)) for pid in training.stdout.readline().split()]
        training.kill()
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


def test_auto_is_half_of_the_cores_and_at_most_four(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, workers in [(1, 0), (2, 1), (6, 3), (64, 4)]:
        monkeypatch.setattr("volseg.training.data.loader.available_cpus", lambda n=cores: frozenset(range(n)))
        assert resolve_workers("auto") == workers
    assert resolve_workers(7) == 7
