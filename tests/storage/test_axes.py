"""Axes in another order than z, y, x are refused or read as stated, with the voxel size permuted alike."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import zarr

from volseg.blocks import Box
from volseg.errors import ConfigError, SourceError
from volseg.storage import ReadOptions, open_readable, parse_axes
from volseg.storage.axes import axis_layout
from volseg.testing.factories import blobs

if TYPE_CHECKING:
    from pathlib import Path

VOXELS = blobs((5, 8, 11))
XYZ = ReadOptions(axes=("x", "y", "z"))


def write(path: Path, how: str) -> str:
    """Write the volume along x, y, z, with voxels of 50, 6 and 4 nm."""
    stored = VOXELS.transpose(2, 1, 0)
    if how == "hdf5":
        with h5py.File(path.with_suffix(".h5"), "w") as file:
            file["raw"] = stored
            file["raw"].attrs["resolution"] = [4.0, 6.0, 50.0]
            for dimension, name in zip(file["raw"].dims, "xyz", strict=True):
                dimension.label = name
        return f"{path.with_suffix('.h5')}:raw"
    if how == "dimension_names":
        array = zarr.create_array(path, data=stored, chunks=(4, 4, 4), dimension_names=["x", "y", "z"])
        array.attrs["voxel_size"] = [4, 6, 50]
        return str(path)
    group = zarr.open_group(path, mode="w", zarr_format=2 if how != "level" else 3)
    array = group.create_array("0", data=stored, chunks=(4, 4, 4))
    if how == "level":
        axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "xyz"]
        scale = [{"type": "scale", "scale": [4, 6, 50]}]
        level = {"path": "0", "coordinateTransformations": scale}
        ome: Any = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [level]}]}
        group.attrs["ome"] = ome
    else:
        array.attrs.update({how: ["x", "y", "z"], "voxel_size": [4, 6, 50]})
    return f"{path}/0"


@pytest.mark.parametrize("how", ["dimension_names", "_ARRAY_DIMENSIONS", "axis_names", "level", "hdf5"])
def test_an_order_that_the_file_names_is_refused_or_read_as_stated(tmp_path: Path, how: str) -> None:
    location = write(tmp_path / "raw", how)
    with pytest.raises(SourceError, match="axes x, y, z, and volseg reads z, y, x; .*--axes x,y,z"):
        open_readable(location)
    volume = open_readable(location, options=XYZ)
    assert (volume.shape, volume.voxel_nm) == (VOXELS.shape, (50, 6, 4))
    expected = np.pad(VOXELS, 3, mode="reflect")
    box = Box((-3, -3, -3), tuple(n + 3 for n in VOXELS.shape))
    np.testing.assert_array_equal(volume.read(box), expected)


@pytest.mark.parametrize(
    ("shape", "names", "stated", "volume", "channel_axis"),
    [
        ((5, 8, 11), (), None, (5, 8, 11), None),
        ((5, 8, 11), ("", "y", ""), None, (5, 8, 11), None),
        ((5, 8, 11), ("dim_0", "dim_1", "dim_2"), None, (5, 8, 11), None),
        ((1, 2, 5, 8, 11), ("t", "c", "z", "y", "x"), None, (5, 8, 11), 1),
        ((5, 8, 11, 1), ("Z", "Y", "X", "C"), None, (5, 8, 11), None),
        ((2, 11, 8, 5), ("c", "x", "y", "z"), ("x", "y", "z"), (5, 8, 11), 0),
        ((5, 8, 11, 1), (), ("z", "y", "x", "c"), (5, 8, 11), None),
    ],
)
def test_z_y_and_x_are_found(shape, names, stated, volume, channel_axis) -> None:
    layout = axis_layout("raw", shape, names, stated)
    assert (layout.volume_shape, layout.channel_axis) == (volume, channel_axis)


@pytest.mark.parametrize(
    ("shape", "names", "stated", "error", "message"),
    [
        ((5, 8, 11), ("a", "b", "c"), None, SourceError, "axes a, b, c, not z, y, x; .*--axes z,y,x"),
        ((5, 8, 11, 1), (), None, SourceError, "names no axes; state them, such as --axes z,y,x,c"),
        ((2, 3, 5, 8, 11), (), None, SourceError, "not one volume"),
        ((5, 8, 11), (), ("c", "z", "y", "x"), ConfigError, "--axes c,z,y,x names 4 axes, but raw has 3"),
    ],
)
def test_what_is_not_understood_is_refused(shape, names, stated, error, message) -> None:
    with pytest.raises(error, match=message):
        axis_layout("raw", shape, names, stated)


@pytest.mark.parametrize("text", ["x,y", "x,y,z,z", "z,y,", "zyx"])
def test_axes_that_do_not_name_z_y_and_x_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="do not name z, y and x once each"):
        parse_axes(text)


@pytest.mark.parametrize("shape", [(1, 16, 20, 3), (1, 16, 20, 1), (512, 512, 3)])
def test_samples_are_not_taken_for_x(shape: tuple[int, ...]) -> None:
    with pytest.raises(SourceError, match="names no axes; state them, such as --axes z,y,x,c"):
        axis_layout("raw", shape)


def test_the_number_of_a_channel_is_never_its_name(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "v.zarr", mode="w", zarr_format=3)
    group.create_array("0", data=np.stack([VOXELS, VOXELS + 1, VOXELS + 2]))
    axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space"} for name in "zyx")]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1, 1]}]}
    ome: Any = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [level]}]}
    group.attrs["ome"] = ome | {"omero": {"channels": [{"label": label} for label in ("1", "2", "0")]}}
    volume = open_readable(str(tmp_path / "v.zarr"), options=ReadOptions(channel="2"))
    for opened in (volume, pickle.loads(pickle.dumps(volume))):
        np.testing.assert_array_equal(opened.read(Box.of_shape(VOXELS.shape)), VOXELS + 1)
