from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from volseg.errors import SourceError
from volseg.storage.zarr_metadata import read_facts


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


def test_a_volume_of_volseg_tells_shape_voxel_size_and_who_wrote_it(make_volume):
    voxels = np.zeros((4, 32, 64), np.uint8)
    raw, membrane = read_facts(make_volume("raw", voxels)), read_facts(make_volume("m", voxels, by_run=True))
    assert (raw.shape, raw.dtype, raw.voxel_nm, raw.axes) == ((4, 32, 64), "uint8", (30, 6, 6), ("z", "y", "x"))
    assert (raw.is_image, raw.by_volseg, membrane.by_volseg) == (True, False, True)


def test_an_array_inside_a_volume_has_its_voxel_size_and_run(make_volume):
    facts = read_facts(make_volume("m", np.zeros((4, 32, 32), np.uint8), by_run=True) / "0")
    assert (facts.voxel_nm, facts.by_volseg, facts.is_image) == ((30, 6, 6), True, False)


def test_levels_tell_how_coarse_the_coarsest_is(tmp_path):
    facts = read_facts(ome_group(tmp_path / "a", axes=axes_in("nanometer"), version="0.5"))
    assert (facts.coarsest, facts.moved) == (2, False)


def test_a_volume_moved_from_the_origin_is_known(tmp_path):
    path = ome_group(tmp_path / "a", axes=axes_in("nanometer"), version="0.5", translation=[0.0, 60.0, 0.0])
    assert read_facts(path).moved


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
def test_metadata_that_neuroglancer_refuses_is_replaced_by_the_array_alone(tmp_path, zarr_format, version, unit, read):
    path = ome_group(tmp_path / "a", axes=axes_in(unit), version=version, zarr_format=zarr_format)
    facts = read_facts(path)
    assert facts.is_image is read
    assert facts.folder == (path if read else path / "0")


def test_leading_axes_are_named_as_neuroglancer_names_them(tmp_path):
    leading = ({"name": "t", "type": "time"}, {"name": "c", "type": "channel"})
    path = ome_group(tmp_path / "a", axes=axes_in("nanometer", *leading), version="0.5", shapes=[(1, 1, 4, 32, 32)])
    facts = read_facts(path)
    assert (facts.axes, facts.shape) == (("t", "c'", "z", "y", "x"), (4, 32, 32))


def test_channels_are_told_by_their_names(make_volume):
    path = make_volume("a", np.zeros((2, 4, 32, 32), np.uint8), channels=("cell", "membrane"))
    for facts in (read_facts(path), read_facts(path / "0")):
        assert (facts.channels, facts.channel_axis, facts.shape) == (("cell", "membrane"), 0, (4, 32, 32))
    assert read_facts(path).axes == ("c'", "z", "y", "x")


def test_channels_without_names_are_counted(tmp_path):
    leading = ({"name": "t", "type": "time"}, {"name": "c", "type": "channel"})
    path = ome_group(tmp_path / "a", axes=axes_in("nanometer", *leading), version="0.5", shapes=[(1, 3, 4, 32, 32)])
    assert (read_facts(path).channels, read_facts(path).channel_axis) == (("0", "1", "2"), 1)
    zarr.create_array(tmp_path / "b", shape=(2, 4, 8, 8), dtype="uint8", dimension_names=["c", "z", "y", "x"])
    assert (read_facts(tmp_path / "b").channels, read_facts(tmp_path / "b").channel_axis) == (("0", "1"), 0)


def test_a_map_tells_where_its_uncertainty_is(make_volume):
    voxels = np.zeros((4, 32, 32), np.uint8)
    path = make_volume("m.zarr", voxels, by_run=True, uncertainty=voxels)
    beside = path / "uncertainty"
    for place in (path, path / "0"):
        assert (read_facts(place).uncertainty, read_facts(place).is_uncertainty) == (beside, False)
    for place in (beside, beside / "0"):
        assert (read_facts(place).uncertainty, read_facts(place).is_uncertainty) == (None, True)
    assert read_facts(make_volume("n.zarr", voxels, by_run=True)).uncertainty is None
    assert not read_facts(make_volume("uncertainty", voxels)).is_uncertainty


@pytest.mark.parametrize(
    ("zarr_format", "named", "axes"),
    [(2, None, ("d0", "d1", "d2")), (3, None, ("dim_0", "dim_1", "dim_2")), (3, ["z", None, "x"], ("z", "dim_1", "x"))],
)
def test_a_plain_array_has_no_voxel_size_but_axes(tmp_path, zarr_format, named, axes):
    given = {} if named is None else {"dimension_names": named}
    zarr.create_array(tmp_path / "a", shape=(4, 8, 8), dtype="uint16", zarr_format=zarr_format, **given)
    facts = read_facts(tmp_path / "a")
    assert (facts.voxel_nm, facts.axes, facts.dtype, facts.is_image) == (None, axes, "uint16", False)


def test_a_plain_array_may_state_its_voxel_size(tmp_path):
    zarr.create_array(tmp_path / "a", shape=(4, 8, 8), dtype="uint64", attributes={"voxel_size": [40, 4, 4]})
    assert read_facts(tmp_path / "a").voxel_nm == (40, 4, 4)


def test_what_is_no_volume_is_refused_with_a_way_out(tmp_path):
    (tmp_path / "empty").mkdir()
    zarr.create_array(tmp_path / "flat", shape=(8, 8), dtype="uint8")
    zarr.open_group(tmp_path / "group", mode="w")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "zarr.json").write_text("{")
    ome_group(tmp_path / "hollow", axes=axes_in("nanometer"), version="0.5").joinpath("0", "zarr.json").unlink()
    times = axes_in("nanometer", {"name": "t", "type": "time"})
    ome_group(tmp_path / "film", axes=times, version="0.5", shapes=[(2, 4, 32, 32)])
    flipped = [{"name": name} for name in "xyz"]
    ome_group(tmp_path / "flipped", axes=flipped, version="0.5")
    for name, said in {
        "absent": "does not exist",
        "empty": "volseg convert",
        "flat": "which is not one volume",
        "film": r"shape \(2, 4, 32, 32\), which is not one volume.*store one volume by itself",
        "group": "name one of its arrays",
        "broken": "cannot read the metadata",
        "hollow": "is not an array",
        "flipped": "last axes are z, y, x",
    }.items():
        with pytest.raises(SourceError, match=said):
            read_facts(tmp_path / name)


def test_a_voxel_type_of_an_extension_is_named(tmp_path):
    zarr.create_array(tmp_path / "a", shape=(4, 8, 8), dtype="uint8")
    stated = json.loads((tmp_path / "a" / "zarr.json").read_text()) | {"data_type": {"name": "numpy.datetime64"}}
    (tmp_path / "a" / "zarr.json").write_text(json.dumps(stated))
    assert read_facts(tmp_path / "a").dtype == "numpy.datetime64"
