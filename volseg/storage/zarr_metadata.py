"""Metadata of Zarr 2 and 3 arrays and of OME-Zarr groups, for any data type.

`open_volume` and the viewer get shape, type, voxel size, levels and channels from here.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr

from volseg.errors import ConfigError, SourceError, VolsegError
from volseg.storage import ome_zarr
from volseg.storage.axes import AxisLayout, axis_layout, named_axes
from volseg.storage.foreign import foreign_format
from volseg.storage.place import Place, array_place
from volseg.storage.zarr_node import ZarrNode, read_node
from volseg.storage.zarr_store import NAME_A_ZARR, open_store
from volseg.storage.zip_folder import ZipFolder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from volseg.blocks import Zyx, ZyxFloat

_LISTED = 8
_NODES = ("/zarr.json", "/.zgroup", "/.zarray")
_DEPTH = 6
"""Depth to which a group is searched for volumes."""
_MALFORMED = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class VolumeMetadata:
    """Metadata of a volume: an array with axes z, y, x among others of length 1, often a level of an OME-Zarr.

    Attributes:
        location: absolute path or URL of the array.
        array: the array's own metadata.
        layout: where z, y and x lie in the array.
        place: voxel size and translation.
        group: the OME-Zarr group of which the array is a level; None for a plain array.
        multiscale: the group's multiscale; None for a plain array.
        levels_nm: voxel sizes of all levels, finest first; empty if the array was named rather than its group.
        channel_labels: channel names stated by the group; empty if not stated.
    """

    location: str
    array: ZarrNode
    layout: AxisLayout
    place: Place
    group: ZarrNode | None = None
    multiscale: Mapping[str, Any] | None = None
    levels_nm: tuple[ZyxFloat | None, ...] = ()
    channel_labels: tuple[str, ...] = ()

    @property
    def voxel_nm(self) -> ZyxFloat | None:
        """Voxel size (z, y, x) in nanometres; None if not known."""
        return self.place.voxel_nm

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


def read_metadata(location: str, level: int | None = None, axes: tuple[str, ...] | None = None) -> VolumeMetadata:
    """Read the metadata of a volume.

    Args:
        location: a path or a URL (http, https, s3, gs, az, file) of an array, or of an OME-Zarr group.
        level: level of an OME-Zarr group, 0 (the default) for the finest; not for an array.
        axes: names of the array's last axes, in their order; by default those of the metadata.

    Raises:
        SourceError: nothing there, not a Zarr, or not a volume with axes z, y and x in any order.
        ConfigError: no such level, or axes that do not fit the array.
    """
    location = absolute_location(location)
    node = read_node(location)
    if node is None:
        reason = f"{location} is not a Zarr{_denied(location)}; {_folder_in_zip(location) or NAME_A_ZARR}"
        raise SourceError(foreign_format(location) or reason)
    if node.shape is None:
        return _level_of_group(location, node, level, axes)
    if level is not None:
        raise ConfigError(f"{location} is one array, so it has no level {level}; name the OME-Zarr group above it")
    try:
        return _metadata(location, node, axes, _group_above(location))
    except VolsegError:
        raise
    except _MALFORMED as error:  # invalid metadata of a group above: read as a plain array
        problem = f"the OME-Zarr metadata above it are invalid ({error!r})"
        return _metadata(location, node, axes, problem=problem)


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


def _level_of_group(location: str, group: ZarrNode, level: int | None, axes: tuple[str, ...] | None) -> VolumeMetadata:
    multiscale = ome_zarr.multiscale_of(group.attributes)
    if multiscale is None:
        series = read_node(f"{location}/0") if ome_zarr.is_bioformats2raw(group.attributes) else None
        if series is not None and ome_zarr.multiscale_of(series.attributes) is not None:
            return read_metadata(f"{location}/0", level, axes)
        names = _volume_names(location)
        raise SourceError(
            f"{location} is a Zarr group without OME-Zarr levels; name one of its volumes"
            + (f", such as {location}/{names[0]}: {', '.join(names[:_LISTED])}" if names else "")
            + (", .." if len(names) > _LISTED else "")
        )
    try:
        paths = ome_zarr.level_paths(multiscale)
        if not paths:
            raise ValueError("a multiscale without levels")
        if not 0 <= (level or 0) < len(paths):
            raise ConfigError(f"{location} has no level {level or 0}; it has levels 0 to {len(paths) - 1}")
        path = paths[level or 0]
        array = read_node(f"{location}/{path}")
        if array is None or array.shape is None:
            raise SourceError(f"{location}/{path} is not an array, though the group's metadata names it as a level")
        metadata = _metadata(f"{location}/{path}", array, axes, (group, multiscale, path))
        places = [ome_zarr.level_place(multiscale, one, metadata.layout) for one in paths]
        return replace(metadata, levels_nm=tuple(place.voxel_nm for place in places))
    except VolsegError:
        raise
    except _MALFORMED as error:
        reason = str(error) if isinstance(error, ValueError) else repr(error)
        raise SourceError(f"{location} has invalid OME-Zarr metadata ({reason}); name one of its arrays") from None


def _metadata(
    location: str,
    array: ZarrNode,
    axes: tuple[str, ...] | None,
    level: tuple[ZarrNode, Mapping[str, Any], str] | None = None,
    problem: str = "",
) -> VolumeMetadata:
    """Join the metadata of an array and of the OME-Zarr of which it is a level: group, multiscale and path."""
    group, multiscale, path = level or (None, None, "")
    shape, others = array.shape or (), (array.attributes.get(key) for key in ("_ARRAY_DIMENSIONS", "axis_names"))
    names = (multiscale and ome_zarr.axis_names(multiscale)) or named_axes(len(shape), array.dimension_names, *others)
    layout = axis_layout(location, shape, names, axes)
    own = array_place(array.attributes, layout)
    place = Place(problem=problem) if multiscale is None else ome_zarr.level_place(multiscale, path, layout)
    return VolumeMetadata(
        location=location,
        array=array,
        layout=layout,
        place=own if (own.is_nm and not place.is_nm) or not (multiscale or problem) else place,
        group=group,
        multiscale=multiscale,
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


def _folder_in_zip(location: str) -> str:
    """What to name of a zip file whose Zarr lies in a folder; empty if there is none."""
    store = None if "://" in location else open_store(location)
    keys = store.keys if isinstance(store, ZipFolder) else ()
    found = sorted((key for key in keys if key.endswith(_NODES)), key=lambda key: (key.count("/"), key))
    return f"name the folder in it: {location}/{found[0].rpartition('/')[0]}" if found else ""


def _denied(location: str) -> str:
    return " that can be read: nothing is there, or its server denies access" if "://" in location else ""
