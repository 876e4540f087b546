"""A resampled volume: any box of it is that of the whole, at the right place, and workers open it again."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from volseg.blocks import Box
from volseg.ops import Resampling, read_reflected
from volseg.ops.resample import mean_taps, resample_axis, rounded
from volseg.storage import (
    CheckedSource,
    ChunkRule,
    ResampledVolume,
    VolumeRef,
    open_volume,
    volume_fingerprint,
)
from volseg.storage import resampled as module
from volseg.testing.factories import blobs, make_volume

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (7, 40, 50)
SIZES = [(30, 12, 12), (12, 15, 6), (75, 4, 9), (30, 6, 6.6)]


def whole(voxels: Any, resampling: Resampling) -> Any:
    """All voxels at once, one axis after the other."""
    values: Any = voxels.astype(np.float64)
    area: Any = 1
    for axis, (ratio, n, count) in enumerate(
        zip(resampling.ratios, voxels.shape, resampling.shape(voxels.shape), strict=True)
    ):
        taps = mean_taps(ratio, n, 0, count)
        values = resample_axis(values, taps, axis)
        area = area * taps.total.reshape([-1 if other == axis else 1 for other in range(3)])
    return rounded(values / area, voxels.dtype.name)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_any_box_is_that_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size, dtype) -> None:
    monkeypatch.setattr(module, "_READ_BYTES", 4000)  # sections are read one or two at once
    voxels = blobs(SHAPE, dtype=dtype)
    raw = make_volume(tmp_path / "raw.zarr", SHAPE, voxels=voxels)
    volume = ResampledVolume(open_volume(str(raw)), Resampling((30, 6, 6), size))
    expected = whole(voxels, volume.resampling)
    assert volume.shape == expected.shape
    rng = np.random.default_rng(0)
    for _ in range(12):  # beyond the edges, too
        start = [int(rng.integers(-5, n)) for n in volume.shape]
        stop = [a + int(rng.integers(1, 20)) for a in start]
        box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        np.testing.assert_array_equal(volume.read(box), read_reflected(expected, start, stop))


@pytest.mark.parametrize("size", [(60, 15, 4), (30, 12, 12)])
def test_any_box_of_labels_is_that_of_the_whole(tmp_path: Path, size) -> None:
    voxels = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint64) << 60
    raw = make_volume(tmp_path / "raw.zarr", SHAPE, voxels=voxels)
    volume = ResampledVolume(open_volume(str(raw), ("uint64",)), Resampling((30, 6, 6), size, "mode"))
    expected = volume.read(Box.of_shape(volume.shape))
    box = Box((1, 5, 7), (3, 9, 22))
    np.testing.assert_array_equal(volume.read(box), expected[box.slices])


def test_a_part_is_resampled_as_if_there_were_no_other(tmp_path: Path) -> None:
    raw = make_volume(tmp_path / "raw.zarr", SHAPE, translation_nm=(30, 60, 600))
    volume, resampling, region = open_volume(str(raw)), Resampling((30, 6, 6), (30, 15, 4)), Box((1, 3, 5), (6, 30, 41))
    part = ResampledVolume(volume, resampling, region)
    np.testing.assert_array_equal(part.read(Box.of_shape(part.shape)), whole(volume.read(region), resampling))
    # The corner of the first voxel stays, its centre moves by half the difference of the sizes.
    assert (part.voxel_nm, part.translation_nm) == ((30, 15, 4), (60, 60 + 18 + 4.5, 600 + 30 - 1))


def test_what_touches_nan_or_infinity_is_nan_in_any_box(tmp_path: Path) -> None:
    voxels = blobs(SHAPE, dtype="float32")
    voxels[2, 10, 10], voxels[3, 20, 21] = np.inf, np.nan
    raw = make_volume(tmp_path / "raw.zarr", SHAPE, voxels=voxels)
    volume = ResampledVolume(open_volume(str(raw)), Resampling((30, 6, 6), (30, 15, 4)))
    expected = volume.read(Box.of_shape(volume.shape))
    assert not np.isinf(expected).any()
    assert np.isnan(expected).any(axis=(1, 2)).tolist() == [False, False, True, True, False, False, False]
    for x in range(0, volume.shape[2], 3):
        box = Box((2, 3, x), (4, 9, x + 2))
        np.testing.assert_array_equal(volume.read(box), expected[box.slices])


def test_workers_open_it_again_and_its_fingerprint_is_of_the_stored_volume(tmp_path: Path) -> None:
    raw = make_volume(tmp_path / "raw.zarr", SHAPE)
    stored, resampling = open_volume(str(raw)), Resampling((30, 6, 6), (30, 12, 12))
    volume = VolumeRef(stored.location, resampling=resampling).open()
    assert volume.shape == (7, 20, 25)
    assert pickle.loads(pickle.dumps(volume)).shape == volume.shape
    assert volume_fingerprint(volume) == volume_fingerprint(stored)


def test_missing_chunks_of_the_stored_volume_are_noticed(tmp_path: Path) -> None:
    raw = make_volume(tmp_path / "raw.zarr", SHAPE)
    next(path for path in raw.rglob("*") if path.match("0/c/1/0/1")).unlink()
    volume = ResampledVolume(open_volume(str(raw)), Resampling((30, 6, 6), (30, 12, 12)))
    source = CheckedSource(volume, ChunkRule())
    assert source.shape == volume.shape
    source.read(Box((0, 0, 0), (7, 16, 16)))
    assert not source.absent
    source.read(Box((2, 0, 16), (3, 4, 25)))
    assert source.absent == {(1, 0, 1)}
