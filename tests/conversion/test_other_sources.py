"""Axes, channels and regions of N5, precomputed and MRC sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import volseg
from volseg.storage import open_readable
from volseg.testing.factories import read_volume

if TYPE_CHECKING:
    from pathlib import Path

tensorstore = pytest.importorskip("tensorstore")
mrcfile = pytest.importorskip("mrcfile")

VOXELS = np.random.default_rng(0).integers(1, 255, (6, 20, 24), np.uint8)
XYZ = VOXELS.transpose(2, 1, 0)
TWO = np.stack([XYZ, 255 - XYZ], 3)
"""Two channels; axes x, y, z, c."""
SIZE = (50.0, 4.0, 6.0)


def n5(path: Path, voxels: Any, **attributes: Any) -> Path:
    metadata = {
        "dimensions": voxels.shape, "blockSize": [8, 8, 4, 1][: voxels.ndim], "dataType": "uint8",
        "compression": {"type": "gzip"}, **attributes,
    }  # fmt: skip
    store = tensorstore.open({"driver": "n5", "kvstore": f"file://{path}/", "metadata": metadata}, create=True).result()
    store[...] = voxels
    return path


def precomputed(path: Path, voxels: Any) -> Path:
    scale = {
        "resolution": [6, 4, 50], "encoding": "raw", "chunk_size": [8, 8, 8], "size": voxels.shape[:3],
        "voxel_offset": [2, 3, 4],
    }  # fmt: skip
    spec = {
        "driver": "neuroglancer_precomputed", "kvstore": f"file://{path}/", "scale_metadata": scale,
        "multiscale_metadata": {"type": "image", "data_type": "uint8", "num_channels": voxels.shape[3]},
    }  # fmt: skip
    tensorstore.open(spec, create=True).result()[...] = voxels
    return path


def mrc(path: Path, voxels: Any) -> Path:
    with mrcfile.new(path) as file:
        file.set_data(voxels.astype("int16"))
        file.voxel_size = (60.0, 40.0, 500.0)
    return path


NAMED: dict[str, Any] = {"axes": ["x", "y", "z", "c"], "units": ["nm"] * 3 + [""], "resolution": [6, 4, 50, 1]}
ROI = {"roi": "1:4,5:,:10"}
START = (4 * 50.0, 3 * 4.0, 2 * 6.0)
CASES: dict[str, tuple[Any, dict[str, Any], Any, tuple[float, ...]]] = {
    "N5 without names": (lambda p: n5(p, TWO), {"axes": "x,y,z,c", "channel": 1, "voxel_size": SIZE}, 255 - VOXELS, ()),
    "N5 in z, y, x": (lambda p: n5(p, VOXELS), {"axes": "z,y,x", "voxel_size": SIZE}, VOXELS, ()),
    "N5 channel and region": (lambda p: n5(p, TWO, **NAMED), {"channel": 1, **ROI}, 255 - VOXELS, ()),
    "precomputed channel and region": (lambda p: precomputed(p, TWO), {"channel": 1, **ROI}, 255 - VOXELS, START),
    "precomputed axes": (lambda p: precomputed(p, TWO[..., :1]), {"axes": "x,y,z"}, VOXELS, START),
    "precomputed other axes": (
        lambda p: precomputed(p, np.stack([VOXELS, VOXELS], 3)),
        {"axes": "z,y,x", "channel": 0, "voxel_size": SIZE},
        VOXELS,
        (2 * 50.0, 3 * 4.0, 4 * 6.0),
    ),
    "MRC region": (lambda p: mrc(p.with_suffix(".mrc"), VOXELS), ROI, VOXELS, ()),
    "MRC axes": (lambda p: mrc(p.with_suffix(".mrc"), XYZ), {"axes": "x,y,z", "voxel_size": SIZE}, VOXELS, ()),
}
"""What writes it, options, its voxels, and its place without the region."""


@pytest.mark.parametrize("name", CASES)
def test_axes_channel_and_region_of_a_source(name: str, tmp_path: Path) -> None:
    write, options, voxels, start = CASES[name]
    volseg.convert(write(tmp_path / "raw"), tmp_path / "out.zarr", cluster="serial", **options)
    first, cut = ((1, 5, 0), np.s_[1:4, 5:, :10]) if "roi" in options else ((0, 0, 0), np.s_[:, :, :])
    np.testing.assert_array_equal(read_volume(tmp_path / "out.zarr"), voxels[cut])
    volume = open_readable(str(tmp_path / "out.zarr"))
    assert volume.voxel_nm == SIZE
    at = [a + n * size for a, n, size in zip(start or (0.0,) * 3, first, SIZE, strict=True)]
    assert volume.translation_nm == pytest.approx(at)


def test_a_channel_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    source = precomputed(tmp_path / "raw", TWO)
    with pytest.raises(volseg.VolsegError, match="no channel 2; choose from 0, 1"):
        volseg.convert(source, tmp_path / "out.zarr", channel=2)
    with pytest.raises(volseg.VolsegError, match="2 channels"):
        volseg.convert(source, tmp_path / "out.zarr")
