"""Coarser levels of conversions: the mean of grey values, the most frequent of labels; resumed like the volume."""

from __future__ import annotations

import itertools
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

import volseg
from volseg.errors import ConfigError
from volseg.ops import downsample_mean, downsample_mode
from volseg.storage.target import Target
from volseg.testing.factories import blobs, make_volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (9, 150, 170)
OPTIONS = {"chunk": (4, 16, 16), "shard": (4, 32, 32), "levels": 4, "cluster": "serial"}


def levels_of(group: Path) -> list[NDArray[Any]]:
    attributes: Any = zarr.open_group(group, mode="r").attrs
    datasets = attributes["ome"]["multiscales"][0]["datasets"]
    return [np.asarray(zarr.open_array(group / dataset["path"], mode="r")[...]) for dataset in datasets]


def assert_levels(group: Path, count: int, downsample: Callable[..., NDArray[Any]]) -> None:
    levels = levels_of(group)
    assert len(levels) == count + 1
    for fine, coarse in itertools.pairwise(levels):
        factors = tuple(min(2, -(-n // m)) for n, m in zip(fine.shape, coarse.shape, strict=True))
        assert (coarse == downsample(fine, factors)).all()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_levels_of_grey_values_are_means(tmp_path: Path, dtype: str) -> None:
    voxels = blobs(SHAPE).astype(dtype)
    voxels[:, :64, :64] = 0
    raw = make_volume(tmp_path / "raw.zarr", SHAPE, voxels=voxels)
    done = volseg.convert(raw, tmp_path / "t.zarr", **OPTIONS)
    assert done.levels == 4
    assert done.complete
    assert_levels(tmp_path / "t.zarr", 4, downsample_mean)


@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
def test_levels_of_labels_are_the_most_frequent(tmp_path: Path, dtype: str) -> None:
    labels = (blobs(SHAPE) // 40).astype(dtype) + 2**31
    raw = make_volume(tmp_path / "labels.zarr", SHAPE, voxels=labels)
    volseg.convert(raw, tmp_path / "t.zarr", **OPTIONS)
    assert_levels(tmp_path / "t.zarr", 4, downsample_mode)


def test_levels_without_shards(tmp_path: Path) -> None:
    raw = make_volume(tmp_path / "raw.zarr", SHAPE, voxels=blobs(SHAPE))
    volseg.convert(raw, tmp_path / "t.zarr", no_shards=True, chunk=(4, 32, 32), levels=2, cluster="serial")
    assert_levels(tmp_path / "t.zarr", 2, downsample_mean)


@pytest.mark.parametrize("writes", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 2, 3))])
def test_a_conversion_that_is_stopped_and_resumed_writes_equal_levels(
    tmp_path: Path, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = make_volume(tmp_path / "raw.zarr", SHAPE, voxels=blobs(SHAPE))
    volseg.convert(raw, tmp_path / "whole.zarr", **OPTIONS)
    write, left = Target.write, [writes]

    def stop(self: Target, *arguments: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return write(self, *arguments)

    monkeypatch.setattr(Target, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        volseg.convert(raw, tmp_path / "t.zarr", **OPTIONS)
    monkeypatch.undo()
    assert volseg.convert(raw, tmp_path / "t.zarr", resume=True, **OPTIONS).complete
    for whole, level in zip(levels_of(tmp_path / "whole.zarr"), levels_of(tmp_path / "t.zarr"), strict=True):
        assert (whole == level).all()


def test_small_volumes_have_no_levels_by_default_and_other_formats_none(tmp_path: Path) -> None:
    raw = make_volume(tmp_path / "raw.zarr", SHAPE, voxels=blobs(SHAPE))
    assert volseg.convert(raw, tmp_path / "t.zarr", cluster="serial").levels == 0
    shutil.rmtree(tmp_path / "t.zarr")
    with pytest.raises(ConfigError, match="--levels 2 does not apply to --format hdf5"):
        volseg.convert(raw, tmp_path / "t.h5", levels=2, cluster="serial")
