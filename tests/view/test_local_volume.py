"""Volumes on disk as Neuroglancer reads them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import zarr

from volseg.errors import SourceError
from volseg.storage import Place
from volseg.view.local_volume import read_local_volume, sample_grey_range


def ome_group(path, *, axes, version, zarr_format=3, shapes=((4, 32, 32), (4, 16, 16)), translation=None):
    """An OME-Zarr whose levels halve y and x."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    datasets = []
    for level, shape in enumerate(shapes):
        group.create_array(str(level), shape=shape, chunks=shape, dtype="uint8")
        scale = [1.0] * (len(shape) - 3) + [30.0, 6.0 * 2**level, 6.0 * 2**level]
        moves = [{"type": "translation", "translation": translation}] if translation else []
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}, *moves]})
    multiscale = {"axes": axes, "datasets": datasets}
    if zarr_format == 3:
        group.attrs["ome"] = {"version": version, "multiscales": [multiscale]}
    else:
        group.attrs["multiscales"] = [multiscale | {"version": version}]
    return path


def axes_in(unit, *leading):
    space = [{"name": name, "type": "space", "unit": unit} for name in "zyx"]
    return [*leading, *(space if unit else [{"name": axis["name"]} for axis in space])]


def test_a_volume_of_volseg_has_shape_voxel_size_and_a_run_record(make_volume):
    voxels = np.zeros((4, 32, 64), np.uint8)
    raw, membrane = (
        read_local_volume(make_volume("raw", voxels)),
        read_local_volume(make_volume("m", voxels, by_run=True)),
    )
    assert (raw.shape, raw.dtype, raw.place.voxel_nm, raw.axes) == ((4, 32, 64), "uint8", (30, 6, 6), ("z", "y", "x"))
    assert (raw.is_multiscale, raw.has_run_record, membrane.has_run_record) == (True, False, True)


def test_an_array_inside_a_volume_has_its_voxel_size_and_run(make_volume):
    volume = read_local_volume(make_volume("m", np.zeros((4, 32, 32), np.uint8), by_run=True) / "0")
    assert (volume.place.voxel_nm, volume.has_run_record, volume.is_multiscale) == ((30, 6, 6), True, False)


def test_the_scale_of_the_coarsest_level_is_read(tmp_path):
    volume = read_local_volume(ome_group(tmp_path / "a", axes=axes_in("nanometer"), version="0.5"))
    assert (volume.max_downsampling, volume.place.translation_nm) == (2, (0, 0, 0))


def test_a_translation_is_read(tmp_path):
    path = ome_group(tmp_path / "a", axes=axes_in("nanometer"), version="0.5", translation=[0.0, 60.0, 0.0])
    assert read_local_volume(path).place == read_local_volume(path / "0").place == Place.of_nm((30, 6, 6), (0, 60, 0))


@pytest.mark.parametrize(
    ("zarr_format", "version", "unit", "read"),
    [
        (3, "0.5", "micrometer", True),
        (3, "0.5", None, True),
        (2, "0.4", "angstrom", True),
        (2, "0.5", "nanometer", False),
        (2, "0.1", "nanometer", False),
        (2, "0.4", "nm", False),
    ],
)
def test_a_group_whose_metadata_neuroglancer_refuses_is_served_as_its_array(tmp_path, zarr_format, version, unit, read):
    path = ome_group(tmp_path / "a", axes=axes_in(unit), version=version, zarr_format=zarr_format)
    volume = read_local_volume(path)
    assert volume.is_multiscale is read
    assert volume.folder == (path if read else path / "0")


def test_leading_axes_have_the_names_that_neuroglancer_gives(tmp_path):
    leading = ({"name": "t", "type": "time"}, {"name": "c", "type": "channel"})
    path = ome_group(tmp_path / "a", axes=axes_in("nanometer", *leading), version="0.5", shapes=[(1, 1, 4, 32, 32)])
    volume = read_local_volume(path)
    assert (volume.axes, volume.shape) == (("t", "c'", "z", "y", "x"), (4, 32, 32))


def test_channels_have_their_names(make_volume):
    path = make_volume("a", np.zeros((2, 4, 32, 32), np.uint8), channels=("cell", "membrane"))
    for volume in (read_local_volume(path), read_local_volume(path / "0")):
        assert (volume.channels, volume.channel_axis, volume.shape) == (("cell", "membrane"), 0, (4, 32, 32))
    assert read_local_volume(path).axes == ("c'", "z", "y", "x")


def test_channels_without_names_are_numbered(tmp_path):
    leading = ({"name": "t", "type": "time"}, {"name": "c", "type": "channel"})
    path = ome_group(tmp_path / "a", axes=axes_in("nanometer", *leading), version="0.5", shapes=[(1, 3, 4, 32, 32)])
    volume = read_local_volume(path)
    assert (volume.channels, volume.channel_axis) == (("0", "1", "2"), 1)
    zarr.create_array(tmp_path / "b", shape=(2, 4, 8, 8), dtype="uint8", dimension_names=["c", "z", "y", "x"])
    assert (read_local_volume(tmp_path / "b").channels, read_local_volume(tmp_path / "b").channel_axis) == (
        ("0", "1"),
        0,
    )


def test_a_map_has_the_folder_of_its_uncertainty(make_volume):
    voxels = np.zeros((4, 32, 32), np.uint8)
    path = make_volume("m.zarr", voxels, by_run=True, uncertainty=voxels)
    uncertainty = path / "uncertainty"
    for place in (path, path / "0"):
        assert (read_local_volume(place).uncertainty, read_local_volume(place).is_uncertainty) == (uncertainty, False)
    for place in (uncertainty, uncertainty / "0"):
        assert (read_local_volume(place).uncertainty, read_local_volume(place).is_uncertainty) == (None, True)
    assert read_local_volume(make_volume("n.zarr", voxels, by_run=True)).uncertainty is None
    assert not read_local_volume(make_volume("uncertainty", voxels)).is_uncertainty


@pytest.mark.parametrize(
    ("zarr_format", "named", "axes"),
    [(2, None, ("d0", "d1", "d2")), (3, None, ("dim_0", "dim_1", "dim_2")), (3, ["z", None, "x"], ("z", "dim_1", "x"))],
)
def test_a_plain_array_has_axes_but_no_voxel_size(tmp_path, zarr_format, named, axes):
    names = {} if named is None else {"dimension_names": named}
    zarr.create_array(tmp_path / "a", shape=(4, 8, 8), dtype="uint16", zarr_format=zarr_format, **names)
    volume = read_local_volume(tmp_path / "a")
    assert (volume.place.voxel_nm, volume.axes, volume.dtype, volume.is_multiscale) == (None, axes, "uint16", False)


def test_other_folders_are_refused_with_a_way_out(tmp_path):
    (tmp_path / "empty").mkdir()
    zarr.create_array(tmp_path / "flat", shape=(8, 8), dtype="uint8")
    zarr.open_group(tmp_path / "group", mode="w")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "zarr.json").write_text("{")
    ome_group(tmp_path / "hollow", axes=axes_in("nanometer"), version="0.5").joinpath("0", "zarr.json").unlink()
    times = axes_in("nanometer", {"name": "t", "type": "time"})
    ome_group(tmp_path / "film", axes=times, version="0.5", shapes=[(2, 4, 32, 32)])
    for name, message in {
        "absent": "does not exist",
        "empty": "volseg convert",
        "flat": "which is not one volume",
        "film": r"shape \(2, 4, 32, 32\), which is not one volume.*store one volume by itself",
        "group": "name one of its volumes",
        "broken": "cannot read the metadata",
        "hollow": "is not an array",
    }.items():
        with pytest.raises(SourceError, match=message):
            read_local_volume(tmp_path / name)


def test_the_grey_range_of_a_volume_is_that_of_its_middle(make_volume):
    voxels = np.zeros((4, 32, 64), np.uint16)
    voxels[2, :, :32], voxels[2, :, 32:] = 1000, 3000
    assert sample_grey_range(read_local_volume(make_volume("a.zarr", voxels))) == (1000, 3000)


def test_each_channel_has_its_own_grey_range(make_volume):
    ramp = np.broadcast_to(np.arange(1, 65, dtype=np.uint8), (4, 32, 64))
    volume = read_local_volume(make_volume("a.zarr", np.stack([ramp, ramp * 2]), channels=("one", "other")))
    (_, first), (_, second) = (sample_grey_range(volume, channel) or (0, 0) for channel in (0, 1))
    assert second == 2 * first


def test_a_volume_that_cannot_be_read_has_no_grey_range(make_volume, tmp_path):
    volume = read_local_volume(make_volume("a.zarr", np.zeros((4, 32, 64), np.uint8)))
    assert sample_grey_range(replace(volume, array=tmp_path / "absent")) is None


def test_the_axes_of_a_volume_may_have_any_order(tmp_path):
    voxels = np.zeros((64, 32, 4), np.uint16)
    voxels[:32, :, 2], voxels[32:, :, 2] = 1000, 3000
    array = zarr.create_array(tmp_path / "a", data=voxels, dimension_names=["x", "y", "z"])
    array.attrs["voxel_size"] = [4, 6, 50]
    volume = read_local_volume(tmp_path / "a")
    assert (volume.axes, volume.shape, volume.place.voxel_nm) == (("x", "y", "z"), (4, 32, 64), (50, 6, 4))
    assert sample_grey_range(volume) == (1000, 3000)
