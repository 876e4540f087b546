"""A verification finds seams in a run's map, and in those of other tools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

import volseg
from tests.ops.test_seams import offset_in_blocks, smooth
from volseg.blocks import Box
from volseg.cli.main import main
from volseg.cluster import SerialExecutor
from volseg.errors import ConfigError, GridError
from volseg.prediction.verification import one_piece, seams
from volseg.prediction.verification.one_piece import Differences, compare_faces, judge
from volseg.prediction.verification.seams import score_map, windows_of
from volseg.prediction.worker import RunRef
from volseg.storage import VolumeRef, read_record
from volseg.testing.doubles import NoteRecorder
from volseg.testing.factories import make_model, make_volume

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = (1, 48, 48)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    return make_volume(folder / "raw.zarr", (2, 96, 96)), make_model(folder / "m.safetensors")


@pytest.fixture(scope="module")
def maps(inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Maps of one network with its exact halo, and with none."""
    folder = tmp_path_factory.mktemp("maps")
    for name, halo in (("exact", "exact"), ("none", (0, 0, 0))):
        volseg.predict(
            str(inputs[0]), str(folder / f"{name}.zarr"), model=str(inputs[1]), block=BLOCK, halo=halo,
            precision="float32", cluster="serial",
        )  # fmt: skip
    return {name: folder / f"{name}.zarr" for name in ("exact", "none")}


def other(path: Path, levels: float) -> Path:
    """A map of another tool, whose blocks of 48 x 48 have offsets."""
    volume = offset_in_blocks(smooth(), (2, 48, 48), levels).astype(np.uint8)
    return make_volume(path, volume.shape, voxels=volume, chunk=(1, 80, 80))


def test_places_computed_in_one_piece_tell_an_exact_halo_from_none(maps: dict[str, Path]) -> None:
    exact = volseg.verify(str(maps["exact"]), cluster="serial", seams=True)
    assert exact.seams is not None
    assert not exact.seamed
    assert exact.seams["computed"]["max_error"] <= 1
    assert exact.seams["computed"]["face_voxels"] > 0
    without = volseg.verify(str(maps["none"]), cluster="serial", seams=True)
    assert without.seamed
    assert without.seams is not None
    assert without.seams["computed"]["off"] > 0.01
    assert "halo 0,0,0, given" in without.seams["computed"]["promise"]
    found = CliRunner().invoke(main, ["verify", str(maps["none"]), "--cluster", "serial", "--seams"])
    assert found.exit_code == 3
    assert "SEAMED" in found.output


def test_a_map_that_is_not_what_its_exact_halo_gives_is_named(maps: dict[str, Path]) -> None:
    """Voxels that are two levels off at few places are more than rounding."""
    record = read_record(maps["exact"])
    levels = np.zeros(256, np.int64)
    levels[[0, 2]] = 99_999, 1
    assert judge(record, Differences(100_000, levels, 100, levels))[1]
    levels[[0, 1, 2]] = 99_995, 5, 0
    assert not judge(record, Differences(100_000, levels, 100, levels))[1]


def test_why_nothing_is_computed_is_said(maps: dict[str, Path], inputs: tuple[Path, Path], tmp_path: Path) -> None:
    record, target = read_record(maps["exact"]), str(maps["exact"])
    strange = make_volume(tmp_path / "strange.zarr", (2, 96, 96), voxels=np.full((2, 96, 96), 9, np.uint8))
    for source, model, reason in (
        (strange, inputs[1], "is not the run's source"),
        (tmp_path / "gone.zarr", inputs[1], "gone.zarr"),
        (inputs[0], tmp_path / "gone.safetensors", "gone.safetensors"),
    ):
        reference = RunRef(target, record.digest, VolumeRef(str(source)), (str(model),))
        found = compare_faces(record, reference, SerialExecutor(), NoteRecorder())
        assert isinstance(found, str)
        assert reason in found


def test_places_lie_over_faces_of_done_blocks(maps: dict[str, Path]) -> None:
    record = read_record(maps["exact"])
    boxes = one_piece.places(record, maps["exact"])
    assert boxes
    for box in boxes:
        assert all(a < 48 < b for a, b in zip(box.start[1:], box.stop[1:], strict=True))


def test_seams_of_another_tool_are_found_with_its_blocks_and_without(tmp_path: Path) -> None:
    seamed, good = other(tmp_path / "seamed.zarr", 4), other(tmp_path / "good.zarr", 0)
    runner = CliRunner()
    for options in (["--block", "2,48,48"], ["--seams"]):
        bad = runner.invoke(main, ["verify", str(seamed), *options, "--json"])
        assert bad.exit_code == 3
        assert json.loads(bad.stdout)["seams"]["statistic"]["block"][1:] == [48, 48]
        fine = runner.invoke(main, ["verify", str(good), *options, "--json"])
        assert (fine.exit_code, json.loads(fine.stdout)["seamed"]) == (0, False)


def test_blocks_that_cannot_be_looked_for_are_refused(maps: dict[str, Path], tmp_path: Path) -> None:
    good = other(tmp_path / "good.zarr", 0)
    with pytest.raises(GridError, match="no faces"):
        volseg.verify(str(good), block=(2, 240, 240))
    with pytest.raises(ConfigError, match="at every voxel"):
        volseg.verify(str(good), block=(1, 48, 48))
    with pytest.raises(ConfigError, match="another tool"):
        volseg.verify(str(maps["exact"]), block=(2, 48, 48))
    with pytest.raises(ConfigError, match="--repair"):
        volseg.verify(str(maps["exact"]), repair=True, seams=True)


@pytest.mark.parametrize("block", [(16, 96, 96), (7, 1024, 1024), (64, 100, 300), None])
def test_windows_are_disjoint_and_within_the_map(block: tuple[int, int, int] | None) -> None:
    """Voxels that are counted twice would make chance look certain."""
    shape = (70, 900, 3000)
    for axis in (0, 1, 2):
        windows = windows_of(shape, block, axis, seed=0)
        boxes = [window.box for window in windows]
        assert all(Box.of_shape(shape).contains(box) for box in boxes)
        assert not any(a.intersection(b).voxels for i, a in enumerate(boxes) for b in boxes[:i])
        if block is not None and block[axis] < shape[axis]:
            assert windows


def test_few_windows_are_read_of_a_huge_map() -> None:
    windows = windows_of((10**5, 10**6, 10**6), (64, 1024, 1024), 1, seed=0)
    assert len(windows) <= seams._CANDIDATES


def test_windows_without_tissue_are_not_measured(tmp_path: Path) -> None:
    empty = make_volume(tmp_path / "empty.zarr", (2, 200, 200), voxels=np.full((2, 200, 200), 3, np.uint8))
    scores = score_map(VolumeRef(str(empty)), (2, 48, 48), SerialExecutor(), NoteRecorder())
    assert not scores.is_measured
    assert not scores.is_seamed
