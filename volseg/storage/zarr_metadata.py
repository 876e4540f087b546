"""Metadata of Zarr 2 and 3 arrays and of OME-Zarr groups, for any data type.

`open_volume` and the viewer get shape, type, voxel size, levels and channels from here.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import zarr

from volseg.errors import ConfigError, SourceError
from volseg.storage import ome_zarr
from volseg.storage.axes import AxisLayout, axis_layout
from volseg.storage.foreign import foreign_format
from volseg.storage.zarr_store import NAME_A_ZARR, open_store, read_json, reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from volseg.blocks import Zyx, ZyxFloat

Format: TypeAlias = Literal["zarr2", "zarr3"]
_LISTED = 8
_DEPTH = 6
"""Depth to which a group is searched for volumes."""
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
    """Metadata of a volume: an array with axes z, y, x among others of length 1, often a level of an OME-Zarr.

    Attributes:
        location: absolute path or URL of the array.
        array: the array's own metadata.
        layout: where z, y and x lie in the array.
        voxel_nm: voxel size (z, y, x) in nanometres; None if not stated.
        group: the OME-Zarr group of which the array is a level; None for a plain array.
        multiscale: the group's multiscale; None for a plain array.
        levels_nm: voxel sizes of all levels, finest first; empty if the array was named rather than its group.
        channel_labels: channel names stated by the group; empty if not stated.
    """

    location: str
    array: ZarrNode
    layout: AxisLayout
    voxel_nm: ZyxFloat | None
    group: ZarrNode | None = None
    multiscale: Mapping[str, Any] | None = None
    levels_nm: tuple[ZyxFloat | None, ...] = ()
    channel_labels: tuple[str, ...] = ()

    @property
    def shape(self) -> Zyx:
        """Voxels along z, y, x."""
        return self.layout.volume_shape

    @property
    def channel_axis(self) -> int | None:
        """The other axis that is longer than 1; None if there is none."""
        return self.layout.channel_axis

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
        raise SourceError(f"cannot read the metadata of {location}: {reason_of(error)}") from error
    return None


def read_metadata(location: str, level: int | None = None, axes: tuple[str, ...] | None = None) -> VolumeMetadata:
    """Read the metadata of a volume.

    Args:
        location: a path or a URL (http, https, s3, gs, az, file) of an array, or of an OME-Zarr group.
        level: level of an OME-Zarr group, 0 (the default) for the finest; not for an array.
        axes: names of the array's last axes, in their order; by default those of the metadata.

    Raises:
        SourceError: nothing there, not a Zarr, or axes in another order than z, y, x that `axes` does not state.
        ConfigError: no such level, or axes that do not fit the array.
    """
    location = absolute_location(location)
    node = read_node(location)
    if node is None:
        raise SourceError(foreign_format(location) or f"{location} is not a Zarr{_denied(location)}; {NAME_A_ZARR}")
    if node.shape is None:
        return _level_of_group(location, node, level, axes)
    if level is not None:
        raise ConfigError(f"{location} is one array, so it has no level {level}; name the OME-Zarr group above it")
    parent, _, name = location.rpartition("/")
    group = None
    with suppress(SourceError):  # a folder that is not a readable group
        group = read_node(parent or "/")
    multiscale = None if group is None else ome_zarr.multiscale_of(group.attributes)
    with suppress(*_MALFORMED):  # invalid metadata of the group: read as a plain array
        if group is not None and multiscale is not None and name in ome_zarr.level_paths(multiscale):
            voxel_nm = ome_zarr.level_voxel_nm(multiscale, name)
            return _metadata(location, node, axes, group, multiscale, voxel_nm)
    return _metadata(location, node, axes)


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


def _level_of_group(location: str, group: ZarrNode, level: int | None, axes: tuple[str, ...] | None) -> VolumeMetadata:
    multiscale = ome_zarr.multiscale_of(group.attributes)
    if multiscale is None:
        if ome_zarr.is_bioformats2raw(group.attributes):
            return read_metadata(f"{location}/0", level, axes)
        names = _volume_names(location)
        raise SourceError(
            f"{location} is a Zarr group without OME-Zarr levels; name one of its volumes"
            + (f", such as {location}/{names[0]}: {', '.join(names[:_LISTED])}" if names else "")
            + (", .." if len(names) > _LISTED else "")
        )
    try:
        paths = ome_zarr.level_paths(multiscale)
        levels_nm = tuple(ome_zarr.level_voxel_nm(multiscale, path) for path in paths)
    except _MALFORMED as error:
        raise SourceError(f"{location} has invalid OME-Zarr metadata ({error!r}); name one of its arrays") from None
    if not 0 <= (level or 0) < len(paths):
        raise ConfigError(f"{location} has no level {level or 0}; it has levels 0 to {len(paths) - 1}")
    array_location = f"{location}/{paths[level or 0]}"
    array = read_node(array_location)
    if array is None or array.shape is None:
        raise SourceError(f"{array_location} is not an array, though the group's metadata names it as a level")
    return _metadata(array_location, array, axes, group, multiscale, levels_nm[level or 0], levels_nm)


def _metadata(
    location: str,
    array: ZarrNode,
    axes: tuple[str, ...] | None,
    group: ZarrNode | None = None,
    multiscale: Mapping[str, Any] | None = None,
    voxel_nm: ZyxFloat | None = None,
    levels_nm: tuple[ZyxFloat | None, ...] = (),
) -> VolumeMetadata:
    names: Sequence[str | None] = array.dimension_names
    if multiscale is not None:
        names = ome_zarr.axis_names(multiscale) or names
    layout = axis_layout(location, array.shape or (), names, axes)
    stored_nm = (voxel_nm or ome_zarr.array_voxel_nm(array.attributes), *levels_nm)
    sizes = [size and layout.spatial_zyx(size) for size in stored_nm]
    return VolumeMetadata(
        location=location,
        array=array,
        layout=layout,
        voxel_nm=sizes[0],
        group=group,
        multiscale=multiscale,
        levels_nm=tuple(sizes[1:]),
        channel_labels=ome_zarr.channel_labels(group.attributes) if group is not None else (),
    )


def _volume_names(location: str) -> list[str]:
    """Paths of the arrays and OME-Zarr groups below a group, up to a few; empty if it cannot be listed."""
    names: list[str] = []

    def search(group: zarr.Group, prefix: str, depth: int) -> None:
        for name, node in sorted(group.members(), key=lambda member: member[0]):
            if len(names) > _LISTED:
                return
            if isinstance(node, zarr.Array) or ome_zarr.multiscale_of(node.attrs.asdict()) is not None:
                names.append(prefix + name)
            elif depth:
                search(node, f"{prefix}{name}/", depth - 1)

    with suppress(Exception), warnings.catch_warnings():  # each store raises errors of its own
        warnings.simplefilter("ignore")  # of files that are no Zarr
        search(zarr.open_group(open_store(location), mode="r"), "", _DEPTH)
    return names


def _denied(location: str) -> str:
    return " that can be read: nothing is there, or its server denies access" if "://" in location else ""


def _zarr3_node(document: Mapping[str, Any]) -> ZarrNode:
    attributes = document.get("attributes", {})
    if document["node_type"] == "group":
        return ZarrNode("zarr3", attributes)
    shape, dtype = tuple(document["shape"]), document["data_type"]
    name = dtype if isinstance(dtype, str) else str(dtype["name"])
    return ZarrNode("zarr3", attributes, shape, name, _names(document.get("dimension_names"), attributes, shape))


def _zarr2_node(document: Mapping[str, Any], attributes: Mapping[str, Any]) -> ZarrNode:
    if "shape" not in document:
        return ZarrNode("zarr2", attributes)
    shape, dtype = tuple(document["shape"]), np.dtype(document["dtype"]).name
    return ZarrNode("zarr2", attributes, shape, dtype, _names(None, attributes, shape))


def _names(stated: Any, attributes: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[str | None, ...]:
    """Names of the axes: of Zarr 3, of xarray, or of daisy, which marks those that are not spatial by ^."""
    for names in (stated, attributes.get("_ARRAY_DIMENSIONS"), attributes.get("axis_names")):
        if isinstance(names, list | tuple) and len(names) == len(shape) and any(names):
            return tuple(name and str(name).rstrip("^") for name in names)
    return (None,) * len(shape)
