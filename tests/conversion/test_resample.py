"""Conversions to another voxel size: the bytes of the whole volume in any blocks, at its place, or one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

import volseg
from tests.conversion.test_resume import interrupt
from tests.conversion.volumes import NAMES, read, tree
from volseg.blocks import Box
from volseg.cli.convert import convert
from volseg.errors import ConfigError, ResumeError
from volseg.ops import Resampling
from volseg.storage import ResampledVolume, open_volume
from volseg.testing.doubles import ActAfter
from volseg.testing.factories import make_volume, read_volume

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (9, 70, 90)
NM = (30.0, 6.0, 6.0)
SERIAL: dict[str, Any] = {"cluster": "serial"}


def whole(raw: Path, size: Any, kind: Any = "mean", roi: Box | None = None) -> Any:
    volume = ResampledVolume(open_volume(str(raw), ("uint8", "uint64")), Resampling(NM, size, kind), roi)
    return volume.read(Box.of_shape(volume.shape))


@pytest.mark.parametrize("size", [(30.0, 12.0, 12.0), (12.0, 15.0, 6.0), (75.0, 4.0, 9.0)])
def test_any_blocking_gives_the_bytes_of_the_whole(here: Path, size: Any) -> None:
    raw = make_volume(here / "raw.zarr", SHAPE, translation_nm=(300, 60, 600))
    for name, shard in (("a", (2, 16, 16)), ("b", (4, 32, 64)), ("c", (16, 128, 256))):
        chunk = (2, 16, 16)
        done = volseg.convert(str(raw), here / f"{name}.zarr", resample=size, shard=shard, chunk=chunk, **SERIAL)
        assert (done.blocks > 1) == (name != "c")
        np.testing.assert_array_equal(read_volume(here / f"{name}.zarr"), whole(raw, size))
    volume = open_volume(str(here / "c.zarr"))
    assert volume.voxel_nm == size
    starts = [t + (new - old) / 2 for t, new, old in zip((300, 60, 600), size, NM, strict=True)]
    assert volume.translation_nm == pytest.approx(starts)


@pytest.mark.parametrize("kind", ["hdf5", "tiff", "n5"])
def test_region_type_and_format_combine_with_it(here: Path, kind: str) -> None:
    if kind == "n5":
        pytest.importorskip("tensorstore")
    raw = make_volume(here / "raw.zarr", SHAPE)
    region, size = Box((1, 3, 5), (8, 64, 88)), (30.0, 15.0, 4.0)
    options: dict[str, Any] = {"roi": str(region), "resample": size, "dtype": "uint16", **SERIAL}
    volseg.convert(str(raw), here / NAMES[kind], **options)
    found = read(kind, here / NAMES[kind])
    assert found.voxels.dtype == np.uint16
    np.testing.assert_array_equal(found.voxels, whole(raw, size, roi=region))
    np.testing.assert_allclose(found.scale, size)


def test_labels_stay_labels(here: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint64) << 60
    raw = make_volume(here / "raw.zarr", SHAPE, voxels=voxels)
    size = (60.0, 15.0, 4.0)
    volseg.convert(str(raw), here / "v.zarr", resample=size, chunk=(2, 16, 16), shard=(2, 16, 16), **SERIAL)
    found = open_volume(str(here / "v.zarr"), ("uint64",))
    np.testing.assert_array_equal(found.read(Box.of_shape(found.shape)), whole(raw, size, "mode"))
    grey = make_volume(here / "grey.zarr", SHAPE)
    volseg.convert(str(grey), here / "w.zarr", resample=size, dtype="uint32", **SERIAL)
    found = open_volume(str(here / "w.zarr"), ("uint32",))
    np.testing.assert_array_equal(found.read(Box.of_shape(found.shape)), whole(grey, size, "mode"))


def test_a_stack_is_resampled_and_levels_are_made_of_the_result(here: Path) -> None:
    raw = make_volume(here / "raw.zarr", SHAPE)
    volseg.convert(str(raw), here / "v.tif", **SERIAL)
    for name, source in (("a", raw), ("b", here / "v.tif")):
        volseg.convert(str(source), here / f"{name}.zarr", resample=(30.0, 4.0, 4.0), levels=2, **SERIAL)
    stored = [{key: value for key, value in tree(here / f"{name}.zarr").items() if "/c/" in key} for name in "ab"]
    assert stored[0] == stored[1]
    assert any(key.startswith("2/") for key in stored[0])


def test_a_stopped_one_is_resumed_with_its_size_only(here: Path) -> None:
    raw, target = make_volume(here / "raw.zarr", SHAPE), here / "v.zarr"
    options: dict[str, Any] = {"chunk": (2, 16, 16), "shard": (2, 16, 16), **SERIAL}
    volseg.convert(str(raw), here / "one.zarr", resample=(30.0, 9.0, 9.0), **options)
    with pytest.raises(KeyboardInterrupt):
        volseg.convert(str(raw), target, resample=(30.0, 9.0, 9.0), progress=ActAfter(2, interrupt), **options)
    with pytest.raises(ResumeError, match="another resampling"):
        volseg.convert(str(raw), target, resample=(30.0, 12.0, 9.0), resume=True, **SERIAL)
    assert volseg.convert(str(raw), target, resume=True, **SERIAL).already_done >= 1
    np.testing.assert_array_equal(read_volume(target), read_volume(here / "one.zarr"))


@pytest.mark.parametrize(
    ("size", "message"),
    [((30, 6, 0.05), "0.1 nm"), ((30, 6, 600), "above 64"), ((0.1, 6, 6), "above 64")],
)
def test_sizes_that_make_no_sense_are_one_line(here: Path, size: Any, message: str) -> None:
    raw = make_volume(here / "raw.zarr", SHAPE)
    with pytest.raises(ConfigError, match=message):
        volseg.convert(str(raw), here / "v.zarr", resample=size)
    unknown = make_volume(here / "unknown.zarr", SHAPE, voxel_nm=None)
    with pytest.raises(ConfigError, match="states no voxel size.*--voxel-size"):
        volseg.convert(str(unknown), here / "v.zarr", resample=(30, 12, 12))


def test_the_plan_says_what_is_done(here: Path) -> None:
    raw = make_volume(here / "raw.zarr", SHAPE)
    arguments = [str(raw), str(here / "v.zarr"), "--resample", "30,12,4", "--dry-run", "--json"]
    plan = json.loads(CliRunner().invoke(convert, arguments).output)
    assert plan["shape"] == [9, 35, 135]
    assert plan["place"] == "voxels of 30 x 12 x 4 nm at 0, 3, -1 nm"
    assert plan["notes"][0] == "voxels of 30 x 6 x 6 nm resampled to 30 x 12 x 4 nm (mean and straight lines)"
