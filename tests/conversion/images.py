"""OME-Zarr images as other programs write them, and the levels that they list."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorstore
import zarr

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (7, 150, 170)
SIZE, START = (30.0, 6.0, 6.0), (300.0, 12.0, 0.0)
"""Voxel size and translation of `image`, in nanometres."""


def image(path: Path, voxels: np.ndarray, version: str = "0.5", finest: str = "s0", **options: Any) -> Path:
    """An OME-Zarr of one level, as zarr-python writes it."""
    v2, lead = version == "0.4", voxels.ndim - 3
    axes = [{"name": name, "type": kind} for name, kind in (("t", "time"), ("c", "channel"))][2 - lead :]
    axes += [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    transformations = [
        {"type": "scale", "scale": [1.0] * lead + [15.0, 3.0, 3.0]},
        {"type": "translation", "translation": [0.0] * lead + [150.0, 6.0, 0.0]},
    ]
    whole = [{"type": "scale", "scale": [1.0] * lead + [2.0] * 3}]
    multiscale = {
        "axes": axes,
        "datasets": [{"path": finest, "coordinateTransformations": transformations}],
        "coordinateTransformations": whole,
        "name": "of others",
    }
    ome = {"version": "0.5", "multiscales": [multiscale], "omero": {"channels": []}}
    attributes = {"multiscales": [multiscale | {"version": "0.4"}]} if v2 else {"ome": ome}
    group = zarr.open_group(path, mode="w", zarr_format=2 if v2 else 3, attributes=attributes | {"mine": [1]})
    if "/" in finest:
        group.require_group(finest.rpartition("/")[0])
    separator = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if v2 else {}
    chunks = (1,) * lead + (4, 32, 32)
    options = {"chunks": chunks, "fill_value": 0} | separator | options
    array = zarr.create_array(
        path / finest, shape=voxels.shape, dtype=voxels.dtype, zarr_format=2 if v2 else 3, **options
    )
    array[...] = voxels
    return path


def attributes_of(path: Path) -> dict[str, Any]:
    return zarr.open_group(path, mode="r", use_consolidated=False).attrs.asdict()


def datasets(path: Path) -> list[dict[str, Any]]:
    attributes = attributes_of(path)
    return attributes.get("ome", attributes)["multiscales"][0]["datasets"]


def levels(path: Path) -> list[np.ndarray]:
    return [np.asarray(zarr.open_array(path / one["path"], mode="r")[...]) for one in datasets(path)]


def assert_chain(path: Path, count: int, method: str) -> None:
    """Each level is what tensorstore makes of the finer one."""
    found = levels(path)
    assert len(found) == count + 1
    downsample: Any = tensorstore.downsample
    for fine, coarse in itertools.pairwise(found):
        factors = [min(2, -(-n // m)) for n, m in zip(fine.shape, coarse.shape, strict=True)]
        expected = downsample(tensorstore.array(fine), factors, method=method).read().result()
        assert coarse.dtype == fine.dtype
        assert (coarse == expected).all()
