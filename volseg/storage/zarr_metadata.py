"""Metadata of Zarr 2 and 3 arrays and of OME-Zarr groups, for any data type.

`open_volume` and the viewer get shape, type, voxel size, levels and channels from here.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import zarr

from volseg.errors import ConfigError, SourceError
from volseg.storage import ome_zarr
from volseg.storage.place import Place, array_place
from volseg.storage.zarr_store import NAME_A_ZARR, open_store, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from volseg.blocks import Zyx, ZyxFloat

Format: TypeAlias = Literal["zarr2", "zarr3"]
_LISTED = 8
_MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class ZarrNode:
    """An array or a group.

    Attributes:
        format: the Zarr version.
        attributes: user attributes.
        shape: voxels along each axis; None for a group.
        dtype: name of the data type, such as `uint8`; None for a group.
        dimension_names: names of the axes, None for an axis without a name; empty for a group.
    """

    format: Format
    attributes: Mapping[str, Any]
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    dimension_names: tuple[str | None, ...] = ()


@dataclass(frozen=True, slots=True)
class VolumeMetadata:
    """Metadata of a volume: an array whose last axes are (z, y, x), often a level of an OME-Zarr.

    Attributes:
        location: absolute path or URL of the array.
        array: the array's own metadata.
        place: voxel size and translation.
        group: the OME-Zarr group of which the array is a level; None for a plain array.
        multiscale: the group's multiscale; None for a plain array.
        levels_nm: voxel sizes of all levels, finest first; empty if the array was named rather than its group.
        channel_axis: the leading axis that is longer than 1; None if there is none.
        channel_labels: channel names stated by the group; empty if not stated.
    """

    location: str
    array: ZarrNode
    place: Place
    group: ZarrNode | None = None
    multiscale: Mapping[str, Any] | None = None
    levels_nm: tuple[ZyxFloat | None, ...] = ()
    channel_axis: int | None = None
    channel_labels: tuple[str, ...] = ()

    @property
    def voxel_nm(self) -> ZyxFloat | None:
        """Voxel size (z, y, x) in nanometres; None if not known."""
        return self.place.voxel_nm

    @property
    def shape(self) -> Zyx:
        """Voxels along z, y, x."""
        z, y, x = (self.array.shape or ())[-3:]
        return z, y, x

    @property
    def dtype(self) -> str:
        """Name of the data type, such as `uint8`."""
        return self.array.dtype or ""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels: their labels, or numbers if the labels do not match; one without a channel axis."""
        count = 1 if self.channel_axis is None else (self.array.shape or ())[self.channel_axis]
        return self.channel_labels if len(self.channel_labels) == count else tuple(map(str, range(count)))


def read_node(location: str) -> ZarrNode | None:
    """Read the metadata of a Zarr 2 or 3 array or group; None if there is none.

    Raises:
        SourceError: the location does not exist, or the metadata cannot be read.
    """
    store = open_store(location)
    try:
        if (document := read_json(store, "zarr.json")) is not None:
            return _zarr3_node(document)
        for key in (".zarray", ".zgroup"):
            if (document := read_json(store, key)) is not None:
                return _zarr2_node(document, read_json(store, ".zattrs") or {})
    except Exception as error:  # each store raises errors of its own
        raise SourceError(f"cannot read the metadata of {location}: {type(error).__name__}: {error}") from error
    return None


def read_metadata(location: str, level: int | None = None) -> VolumeMetadata:
    """Read the metadata of a volume.

    Args:
        location: a path or a URL (http, https, s3, gs, az, file) of an array, or of an OME-Zarr group.
        level: level of an OME-Zarr group, 0 (the default) for the finest; not for an array.

    Raises:
        SourceError: nothing there, not a Zarr, or not a volume with last axes (z, y, x).
        ConfigError: no such level.
    """
    location = absolute_location(location)
    node = read_node(location)
    if node is None:
        raise SourceError(f"{location} is not a Zarr; {NAME_A_ZARR}")
    if node.shape is None:
        return _level_of_group(location, node, level)
    if level is not None:
        raise ConfigError(f"{location} is one array, so it has no level {level}; name the OME-Zarr group above it")
    _refuse_other_shapes(location, node.shape)
    try:
        if (found := _group_above(location)) is None:
            return _metadata(location, node)
        group, multiscale, path = found
        return _metadata(location, node, group, multiscale, ome_zarr.level_place(multiscale, path))
    except _MALFORMED as error:  # invalid metadata of a group above: read as a plain array
        return _metadata(location, node, place=Place(problem=f"the OME-Zarr metadata above it are invalid ({error!r})"))


def _group_above(location: str) -> tuple[ZarrNode, Mapping[str, Any], str] | None:
    """Find the OME-Zarr group above an array that names it as a level: the group, its multiscale, and the path."""
    parent, _, path = location.rpartition("/")
    while "://" in parent or "://" not in location:
        group = None
        with suppress(SourceError):  # a folder that is not a readable group
            group = read_node(parent or "/")
        if group is not None and group.shape is None and (found := ome_zarr.multiscale_naming(group.attributes, path)):
            return group, *found
        if not parent:
            return None
        parent, _, name = parent.rpartition("/")
        path = f"{name}/{path}"
    return None


def channel_names(location: str) -> tuple[str, ...]:
    """Channel names stated by the OME-Zarr at a location; empty if not stated.

    Raises:
        SourceError: nothing there, or not a volume.
    """
    return read_metadata(location).channel_labels


def absolute_location(location: str) -> str:
    """Make a path absolute; a URL stays, `file://` is removed.

    >>> absolute_location("s3://bucket/raw.zarr/"), absolute_location("file:///data/raw.zarr")
    ('s3://bucket/raw.zarr', '/data/raw.zarr')
    """
    location = location.removeprefix("file://")
    return location.rstrip("/") if "://" in location else str(Path(location).absolute())


def _level_of_group(location: str, group: ZarrNode, level: int | None) -> VolumeMetadata:
    multiscale = ome_zarr.multiscale_of(group.attributes)
    if multiscale is None:
        arrays = _array_names(location)
        raise SourceError(
            f"{location} is a Zarr group without OME-Zarr levels; name one of its arrays"
            + (f": {', '.join(arrays[:_LISTED])}" if arrays else "")
        )
    try:
        paths, axes = ome_zarr.level_paths(multiscale), ome_zarr.axis_names(multiscale)
        places = [ome_zarr.level_place(multiscale, path) for path in paths]
    except _MALFORMED as error:
        raise SourceError(f"{location} has invalid OME-Zarr metadata ({error!r}); name one of its arrays") from None
    if axes and axes[-3:] != ["z", "y", "x"]:
        raise SourceError(f"{location} has axes {', '.join(axes)}; volseg reads volumes whose last axes are z, y, x")
    if not 0 <= (level or 0) < len(paths):
        raise ConfigError(f"{location} has no level {level or 0}; it has levels 0 to {len(paths) - 1}")
    array_location = f"{location}/{paths[level or 0]}"
    array = read_node(array_location)
    if array is None or array.shape is None:
        raise SourceError(f"{array_location} is not an array, though the group's metadata names it as a level")
    _refuse_other_shapes(array_location, array.shape)
    levels_nm = tuple(place.voxel_nm for place in places)
    return _metadata(array_location, array, group, multiscale, places[level or 0], levels_nm)


def _metadata(
    location: str,
    array: ZarrNode,
    group: ZarrNode | None = None,
    multiscale: Mapping[str, Any] | None = None,
    place: Place | None = None,
    levels_nm: tuple[ZyxFloat | None, ...] = (),
) -> VolumeMetadata:
    own = array_place(array.attributes, array.dimension_names)
    return VolumeMetadata(
        location=location,
        array=array,
        place=own if place is None or (own.is_nm and not place.is_nm) else place,
        group=group,
        multiscale=multiscale,
        levels_nm=levels_nm,
        channel_axis=next((axis for axis, n in enumerate((array.shape or ())[:-3]) if n != 1), None),
        channel_labels=ome_zarr.channel_labels(group.attributes) if group is not None else (),
    )


def _refuse_other_shapes(location: str, shape: tuple[int, ...]) -> None:
    if len(shape) < 3 or sum(n != 1 for n in shape[:-3]) > 1:
        raise SourceError(
            f"{location} has shape {shape}, which is not one volume of axes (z, y, x); "
            "stack its sections, or store each volume as an array of its own"
        )
    if 0 in shape:
        raise SourceError(f"{location} has shape {shape}, so it has no voxels; name another array")


def _array_names(location: str) -> list[str]:
    """Names of the arrays in a group; empty if its store cannot list them."""
    with suppress(Exception):  # each store raises errors of its own
        return sorted(zarr.open_group(open_store(location), mode="r").array_keys())
    return []


def _zarr3_node(document: Mapping[str, Any]) -> ZarrNode:
    attributes = document.get("attributes", {})
    if document["node_type"] == "group":
        return ZarrNode("zarr3", attributes)
    shape, dtype = tuple(document["shape"]), document["data_type"]
    name = dtype if isinstance(dtype, str) else str(dtype["name"])
    names = tuple(document.get("dimension_names") or (None,) * len(shape))
    return ZarrNode("zarr3", attributes, shape, name, names)


def _zarr2_node(document: Mapping[str, Any], attributes: Mapping[str, Any]) -> ZarrNode:
    if "shape" not in document:
        return ZarrNode("zarr2", attributes)
    shape, dtype = tuple(document["shape"]), np.dtype(document["dtype"]).name
    names = tuple(attributes.get("_ARRAY_DIMENSIONS") or (None,) * len(shape))
    return ZarrNode("zarr2", attributes, shape, dtype, names)
