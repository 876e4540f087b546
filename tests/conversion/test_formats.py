"""Each format becomes each other one: equal voxels, size, place and axes, read by the libraries of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import volseg
from tests.conversion.volumes import LIBRARIES, NAMES, OPTIONS, read
from volseg.errors import ConfigError
from volseg.storage import Place
from volseg.storage.create import create_volume
from volseg.testing.factories import blobs

if TYPE_CHECKING:
    from pathlib import Path

SHAPE, SCALE, START = (13, 50, 45), (50.0, 4.0, 6.0), (150.0, 40.0, 12.0)
SOURCES = (*NAMES, "zip", "mrc", "nrrd", "nifti")
"""Formats that are read; those that are not written are made by the library of each."""


def make(path: Path, dtype: str = "uint8") -> np.ndarray:
    voxels = blobs(SHAPE, dtype="uint8") > 128 if dtype == "bool" else blobs(SHAPE, dtype="uint8").astype(dtype)
    if dtype in ("uint64", "int64"):
        voxels[voxels > 200] = 2**40 + 1
    target = create_volume(
        path, shape=SHAPE, shard=(16, 64, 64), chunk=(8, 16, 16), dtype=dtype, place=Place.of_nm(SCALE, START)
    )
    target._array[:] = voxels
    return voxels


def make_source(folder: Path, kind: str) -> tuple[str, np.ndarray]:
    """A volume of a format in a folder, and its voxels."""
    voxels = make(folder / "raw.zarr")
    if kind in NAMES:
        assert volseg.convert(folder / "raw.zarr", folder / NAMES[kind], **OPTIONS.get(kind, {})).complete
        return str(folder / NAMES[kind]), voxels
    return LIBRARIES[kind](folder, voxels, SCALE, START), voxels


PAIRS = [
    pytest.param(source, target, marks=() if "ome-zarr" in (source, target) else pytest.mark.slow)
    for source in SOURCES
    for target in NAMES
]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_round_trip_keeps_voxels_size_and_place(here: Path, source: str, target: str) -> None:
    (here / "in").mkdir()
    first, voxels = make_source(here / "in", source)
    done = volseg.convert(first, NAMES[target], **OPTIONS.get(target, {}))
    assert done.complete
    assert done.blocks > 1 or target in ("tiff", "ome-tiff", "hdf5")
    found = read(target, here / NAMES[target])
    np.testing.assert_array_equal(found.voxels, voxels)
    tolerance = 1e-6 if source in ("mrc", "nifti") else 1e-9  # their headers hold float32
    np.testing.assert_allclose(found.scale, SCALE, rtol=tolerance)
    np.testing.assert_allclose(found.translation, START, rtol=tolerance)
    assert sorted(path.name for path in here.iterdir()) == sorted(["in", NAMES[target]])


REFUSED = {
    "tiff": ("int16", "uint32", "uint64", "int64", "bool"),
    "ome-tiff": ("uint64", "int64", "bool"),
    "n5": ("bool",),
    "precomputed": ("int64", "bool"),
    "webknossos": ("bool",),
}
_MOST = [pytest.param(dtype, marks=pytest.mark.slow) for dtype in ("uint16", "int16", "uint32", "int64")]


@pytest.mark.parametrize("dtype", ["float32", "uint64", "bool", *_MOST])
@pytest.mark.parametrize("target", NAMES)
def test_a_format_keeps_a_type_or_refuses_it_with_a_way_out(here: Path, target: str, dtype: str) -> None:
    voxels = make(here / "raw.zarr", dtype)
    if dtype in REFUSED.get(target, ()):
        with pytest.raises(ConfigError, match="--dtype"):
            volseg.convert("raw.zarr", NAMES[target], **OPTIONS.get(target, {}))
        assert [path.name for path in here.iterdir()] == ["raw.zarr"]
        return
    volseg.convert("raw.zarr", NAMES[target], **OPTIONS.get(target, {}))
    found = read(target, here / NAMES[target])
    np.testing.assert_array_equal(found.voxels, voxels)
    assert found.voxels.dtype == np.dtype(dtype).newbyteorder(found.voxels.dtype.byteorder)


@pytest.mark.parametrize("target", NAMES)
def test_a_region_keeps_its_place(here: Path, target: str) -> None:
    voxels = make(here / "raw.zarr")
    volseg.convert("raw.zarr", NAMES[target], roi="3:12,5:,:40", **OPTIONS.get(target, {}))
    found = read(target, here / NAMES[target])
    np.testing.assert_array_equal(found.voxels, voxels[3:12, 5:, :40])
    np.testing.assert_allclose(found.translation, [a + n * s for a, n, s in zip(START, (3, 5, 0), SCALE, strict=True)])


def test_a_missing_extra_is_refused_with_the_line_that_installs_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(here / "raw.zarr")
    monkeypatch.setattr("volseg.storage.writers.base.find_spec", lambda name: None)
    for name in ("v.n5", "v.precomputed"):
        with pytest.raises(ConfigError, match=r"needs tensorstore; install it with: pip install 'volseg\[formats\]'"):
            volseg.convert("raw.zarr", name)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("v.h5", {"chunk": (1, 8, 8)}, "--chunk does not apply to --format hdf5"),
        ("v.tif", {"no_shards": True}, "--no-shards does not apply to --format tiff"),
        ("v.n5", {"shard": (8, 8, 8)}, "--shard does not apply to --format n5"),
        ("v.zarr", {"chunk": (3, 8, 8), "shard": (8, 8, 8)}, "is not made of whole chunks"),
        ("v.zarr", {"no_shards": True, "shard": (8, 8, 8)}, "--shard and --no-shards contradict"),
        ("v.zarr", {"format": "mrc"}, "there is no format 'mrc'"),
        ("v.zarr", {"range": (1, 2)}, "--range 1,2 needs a --dtype"),
        ("v.zarr", {"missing_chunks": "fill", "source": "x.h5"}, "--missing-chunks does not apply"),
    ],
)
def test_what_does_not_fit_is_refused_before_work_starts(here: Path, target: str, options: dict, message: str) -> None:
    make(here / "raw.zarr")
    source = options.pop("source", "raw.zarr")
    if source != "raw.zarr":
        volseg.convert("raw.zarr", source)
    with pytest.raises(volseg.VolsegError, match=message):
        volseg.convert(source, target, **options)
    assert not list(here.glob("*v.*"))


def test_a_place_between_voxels_is_said_where_a_format_has_none(here: Path) -> None:
    create_volume(
        here / "raw.zarr", shape=SHAPE, shard=(16, 64, 64), chunk=(8, 16, 16), dtype="uint8",
        place=Place.of_nm((50.0, 8.0, 8.0), (0.0, 2.0, 2.0)),
    )._array[:] = 3  # fmt: skip
    from volseg.testing.doubles import NoteRecorder

    notes = NoteRecorder()
    volseg.convert("raw.zarr", "v.precomputed", progress=notes)
    assert any("in whole voxels" in note for note in notes.lines), notes.lines
    assert read("precomputed", here / "v.precomputed").translation == (0.0, 0.0, 0.0)
