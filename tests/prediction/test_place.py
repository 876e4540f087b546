"""A map lies where its source lies, and states no voxel size that nobody stated."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import volseg
from volseg.cli.main import main
from volseg.errors import ConfigError, ModelError, ResumeError, SourceError
from volseg.storage import open_volume, read_record
from volseg.testing.factories import make_volume

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (2, 32, 32)
MOVED = (1000.0, 400.0, 800.0)
FAST: dict[str, Any] = {"cluster": "serial", "device": "cpu", "precision": "float32", "halo": "exact"}


def ome(path: Path) -> Any:
    return json.loads((path / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]


@pytest.fixture
def pyramid(tmp_path: Path) -> Path:
    """A translated volume in micrometres; level 1, of half the sections' resolution, lies half a voxel further."""
    path = make_volume(tmp_path / "raw.zarr", SHAPE)
    make_volume(tmp_path / "half.zarr", (2, 16, 16))
    (tmp_path / "half.zarr" / "0").rename(path / "1")
    axes = [{"name": name, "type": "space", "unit": "micrometre"} for name in "zyx"]
    levels = [([0.03, 0.006, 0.006], [1.0, 0.4, 0.8]), ([0.03, 0.012, 0.012], [1.0, 0.403, 0.803])]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": scale},
                {"type": "translation", "translation": start},
            ],
        }
        for level, (scale, start) in enumerate(levels)
    ]
    group = zarr.open_group(path)
    multiscales: Any = [{"axes": axes, "datasets": datasets}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    return path


@pytest.mark.parametrize(("level", "size", "start"), [(0, (30, 6, 6), MOVED), (1, (30, 12, 12), (1000, 403, 803))])
def test_map_and_uncertainty_lie_at_the_level_that_was_read(
    pyramid: Path, small_model: Path, level, size, start
) -> None:
    target = pyramid.parent / "map.zarr"
    volseg.predict(
        str(pyramid), str(target), model=str(small_model), scale_level=level, ignore_voxel_size=True,
        orientations="flips", uncertainty=True, **FAST,
    )  # fmt: skip
    for path in (target, target / "uncertainty"):
        multiscale = ome(path)
        assert [axis["unit"] for axis in multiscale["axes"]] == ["nanometer"] * 3
        scale, translation = multiscale["datasets"][0]["coordinateTransformations"]
        assert scale == {"type": "scale", "scale": pytest.approx(size)}
        assert translation == {"type": "translation", "translation": pytest.approx(start)}
    source = read_record(target).source
    assert source.voxel_nm == pytest.approx(size)
    assert source.translation_nm == pytest.approx(start)
    assert not source.voxel_size_given


def predict(*arguments: str) -> tuple[int, str]:
    fast = ["--cluster", "serial", "--device", "cpu", "--precision", "float32", "--halo", "exact"]
    result = CliRunner().invoke(main, ["predict", *arguments, *fast])
    return result.exit_code, result.output + str(result.exception or "")


def test_a_source_without_voxel_size_makes_a_map_without_and_one_line_says_so(
    tmp_path: Path, small_model: Path
) -> None:
    raw, target = make_volume(tmp_path / "raw.zarr", SHAPE, voxel_nm=None), tmp_path / "map.zarr"
    code, said = predict(str(raw), str(target), "--model", str(small_model))
    assert code == 0, said
    assert "states no voxel size (it states no unit of axis z), so the map states none" in said
    assert "--voxel-size Z,Y,X" in said
    assert all("unit" not in axis for axis in ome(target)["axes"])
    assert ome(target)["datasets"][0]["coordinateTransformations"] == [{"type": "scale", "scale": [1, 1, 1]}]
    assert zarr.open_group(target, mode="r").attrs["volseg"]["source"]["voxel_nm"] is None  # type: ignore[index,call-overload]


def test_a_voxel_size_that_the_user_states_is_that_of_the_map(tmp_path: Path, small_model: Path) -> None:
    raw, target = make_volume(tmp_path / "raw.zarr", SHAPE, voxel_nm=None), tmp_path / "map.zarr"
    options: dict[str, Any] = {"model": str(small_model), **FAST}
    volseg.predict(str(raw), str(target), voxel_size=(29, 6, 6), **options)
    assert open_volume(str(target)).voxel_nm == (29, 6, 6)
    source = read_record(target).source
    assert (source.voxel_nm, source.translation_nm, source.voxel_size_given) == ((29, 6, 6), (0, 0, 0), True)
    # A resumed run keeps it; another one is refused.
    for same in ({}, {"voxel_size": (29, 6, 6)}):
        assert volseg.predict(str(raw), str(target), resume=True, **same, **options).done == 0
    with pytest.raises(ResumeError, match=r"with a voxel size of \(29.0, 6.0, 6.0\), not \(30.0, 6.0, 6.0\)"):
        volseg.predict(str(raw), str(target), resume=True, voxel_size=(30, 6, 6), **options)


def test_the_stated_size_is_checked_against_the_model(tmp_path: Path, small_model: Path) -> None:
    raw, options = make_volume(tmp_path / "raw.zarr", SHAPE), {"model": str(small_model), **FAST}
    with pytest.raises(ModelError, match=r"voxels are 30 x 12 x 12 nm.*--voxel-size"):
        volseg.predict(str(raw), str(tmp_path / "map.zarr"), voxel_size=(30, 12, 12), **options)
    for size in ((30, 0, 6), (30, float("nan"), 6), (30, 0.01, 6)):
        with pytest.raises(ConfigError, match=r"voxel_size|voxel-size"):
            volseg.predict(str(raw), str(tmp_path / "map.zarr"), voxel_size=size, **options)


def test_a_source_that_was_moved_is_another_source(tmp_path: Path, small_model: Path) -> None:
    raw, target = make_volume(tmp_path / "raw.zarr", SHAPE), tmp_path / "map.zarr"
    volseg.predict(str(raw), str(target), model=str(small_model), **FAST)
    group = zarr.open_group(raw)
    attributes: Any = group.attrs["ome"]
    attributes["multiscales"][0]["datasets"][0]["coordinateTransformations"].append(
        {"type": "translation", "translation": MOVED}
    )
    group.attrs["ome"] = attributes
    with pytest.raises(ResumeError, match="another translation"):
        volseg.predict(str(raw), str(target), model=str(small_model), resume=True, **FAST)


def test_a_prediction_is_not_scored_against_a_truth_elsewhere(tmp_path: Path) -> None:
    raw = make_volume(tmp_path / "a.zarr", SHAPE, voxel_nm=(50, 4, 4), translation_nm=MOVED)
    halves = np.repeat(np.uint8([0, 255]), 16) * np.ones(SHAPE, np.uint8)
    for name, size, start in (("b", (50, 4, 4), (0, 0, 0)), ("c", (50, 8, 8), MOVED)):
        truth = make_volume(tmp_path / f"{name}.zarr", SHAPE, voxels=halves, voxel_nm=size, translation_nm=start)
        with pytest.raises(SourceError, match=r"50 x 4 x 4 nm at 1000, 400, 800 nm, .*--ignore-place"):
            volseg.evaluate(str(raw), str(truth))
        volseg.evaluate(str(raw), str(truth), ignore_place=True, pixels_only=True, membrane="nonzero", ignore=1)
    unknown = make_volume(tmp_path / "d.zarr", SHAPE, voxels=halves, voxel_nm=None)
    volseg.evaluate(str(raw), str(unknown), pixels_only=True, membrane="nonzero")
