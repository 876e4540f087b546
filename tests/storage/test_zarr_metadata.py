"""Metadata of Zarr arrays and OME-Zarr groups, as one function reads them for all users."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import zarr

from volseg.errors import ConfigError, SourceError
from volseg.storage import open_volume
from volseg.storage.create import create_volume
from volseg.storage.place import Place
from volseg.storage.zarr_metadata import read_metadata
from volseg.storage.zarr_node import read_node

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (4, 16, 16)


def image(path: Path, channels: tuple[str, ...] = ()) -> Path:
    create_volume(
        path, shape=SHAPE, shard=SHAPE, chunk=SHAPE, dtype="uint8", place=Place.of_nm((30, 6, 6)), channels=channels
    )
    return path


@pytest.mark.parametrize("channels", [(), ("cell", "membrane")])
def test_a_group_and_its_level_have_the_same_shape_voxel_size_and_channels(tmp_path: Path, channels) -> None:
    path = image(tmp_path / "a.zarr", channels)
    group, level = read_metadata(str(path)), read_metadata(f"{path}/0")
    for metadata in (group, level):
        assert (metadata.location, metadata.shape, metadata.dtype) == (str(path / "0"), SHAPE, "uint8")
        assert (metadata.voxel_nm, metadata.channels) == ((30, 6, 6), channels or ("0",))
        assert metadata.channel_axis == (0 if channels else None)
    assert (group.levels_nm, level.levels_nm) == (((30, 6, 6),), ())


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_plain_array_states_what_its_own_attributes_state(tmp_path: Path, zarr_format: Any) -> None:
    attributes: Any = {"voxel_size": [40, 4, 4]}
    zarr.create_array(tmp_path / "a", shape=SHAPE, dtype="uint64", zarr_format=zarr_format, attributes=attributes)
    metadata = read_metadata(str(tmp_path / "a"))
    assert (metadata.voxel_nm, metadata.dtype, metadata.group) == ((40, 4, 4), "uint64", None)
    assert metadata.array.dimension_names == ()


def test_a_level_of_an_ome_zarr_has_the_voxel_size_that_its_group_states(tmp_path: Path) -> None:
    path = image(tmp_path / "a.zarr")
    zarr.open_array(path / "0").attrs["voxel_size"] = [1, 1, 1]
    assert open_volume(str(path)).voxel_nm == open_volume(str(path / "0")).voxel_nm == (30, 6, 6)


def test_the_data_type_of_an_extension_is_named(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a", shape=SHAPE, dtype="uint8")
    document = json.loads((tmp_path / "a" / "zarr.json").read_text()) | {"data_type": {"name": "numpy.datetime64"}}
    (tmp_path / "a" / "zarr.json").write_text(json.dumps(document))
    assert read_metadata(str(tmp_path / "a")).dtype == "numpy.datetime64"


def test_metadata_that_cannot_be_read_are_refused_for_a_group_and_ignored_for_its_array(tmp_path: Path) -> None:
    path = image(tmp_path / "a.zarr")
    zarr.open_group(path).attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": "zyx"}]}
    with pytest.raises(SourceError, match=r"invalid OME-Zarr metadata .*name one of its arrays"):
        read_metadata(str(path))
    assert read_metadata(f"{path}/0").voxel_nm is None


@pytest.mark.parametrize("level", [-1, 1])
def test_a_level_that_is_missing_is_refused_with_those_there_are(tmp_path: Path, level: int) -> None:
    path = image(tmp_path / "a.zarr")
    with pytest.raises(ConfigError, match=f"no level {level}; it has levels 0 to 0"):
        read_metadata(str(path), level)
    with pytest.raises(ConfigError, match="name the OME-Zarr group above it"):
        read_metadata(f"{path}/0", 0)


def test_a_folder_without_metadata_has_no_node(tmp_path: Path) -> None:
    assert read_node(str(tmp_path)) is None
