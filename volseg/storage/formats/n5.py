"""N5 datasets and multiscale groups, with the places that tensorstore, n5-viewer and COSEM write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.errors import ConfigError, SourceError, VolsegError
from volseg.storage.array_volume import ChunkedVolume, refuse_dtype
from volseg.storage.axes import DEFAULT_OPTIONS, ReadOptions, at_channel, axis_layout
from volseg.storage.chunk_grid import ChunkGrid
from volseg.storage.formats.json_files import json_at, sizes_of
from volseg.storage.formats.n5_place import n5_axes, n5_place
from volseg.storage.formats.tensorstore_array import TensorArray, kvstore
from volseg.storage.ome_zarr import level_paths
from volseg.storage.watch import MetadataWatch
from volseg.storage.zarr_metadata import absolute_location
from volseg.storage.zarr_store import open_store
from volseg.storage.zarr_volume import GREY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from volseg.storage.array_volume import ArrayVolume

METADATA = "attributes.json"
_LISTED, _DEPTH, _MAX_LEVELS = 8, 6, 32
_MALFORMED = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)


def open_n5(
    location: str,
    dtypes: tuple[str, ...] = GREY,
    options: ReadOptions = DEFAULT_OPTIONS,
    level: int | None = None,
) -> ArrayVolume:
    """Open a dataset, or a level of a multiscale group; an N5 of one dataset needs no name.

    Args:
        location: path or URL.
        dtypes: supported voxel types.
        options: axes and channel; the axes are x, y, z without names.
        level: of a group, 0 for the finest, which is the default.

    Raises:
        SourceError: nothing there, several datasets, another type, or tensorstore is not installed.
        ConfigError: options that do not fit it, or no such level.
    """
    location = absolute_location(location)
    attributes = json_at(location, METADATA) or {}
    try:
        if "dimensions" in attributes:
            if level is not None:
                raise ConfigError(f"{location} is one array, so it has no level {level}; name the group above it")
            return _open_dataset(location, attributes, dtypes, options)
        paths = _levels(location, attributes)
        if paths:
            if not 0 <= (level or 0) < len(paths):
                raise ConfigError(f"{location} has no level {level}; it has levels 0 to {len(paths) - 1}")
            return open_n5(f"{location}/{paths[level or 0]}", dtypes, options)
    except VolsegError:
        raise
    except _MALFORMED as error:
        raise SourceError(f"{location} has invalid N5 metadata ({error!r}); check its {METADATA}") from error
    names = [] if "://" in location else list(_datasets(Path(location)))
    if len(names) == 1:
        return open_n5(f"{location}/{names[0]}", dtypes, options, level)
    such = f", such as {location}/{names[0]}: {', '.join(names[:_LISTED])}" if names else ""
    raise SourceError(f"{location} is an N5 group without levels; name one of its datasets{such}")


def has_metadata(location: str) -> bool:
    """Whether a path or URL has the metadata of an N5 group or dataset.

    Raises:
        SourceError: they cannot be read.
    """
    return json_at(location, METADATA) is not None


def _open_dataset(
    location: str, attributes: Mapping[str, Any], dtypes: tuple[str, ...], options: ReadOptions
) -> ChunkedVolume:
    shape, block = (sizes_of(attributes, key) for key in ("dimensions", "blockSize"))
    if len(shape) != len(block):
        raise ValueError(f"dimensions {shape} and blocks {block}")
    dtype = str(attributes["dataType"])
    refuse_dtype(location, dtype, dtypes)
    names = n5_axes(attributes, len(shape))
    if not names and options.axes is None:
        raise SourceError(f"{location} has {len(shape)} axes without names; state them, such as --axes x,y,z,c")
    layout = axis_layout(location, shape, names, options.axes)
    array = TensorArray(location, {"driver": "n5", "kvstore": kvstore(location)})
    if array.shape != shape:
        raise SourceError(f"{location} has changed while it was opened; start again")
    group, key = location.rpartition("/")[0], location.rpartition("/")[2]
    above = _group_above(group)
    paths = _levels(group, above) if above else []
    numbers = list(range(len(paths))) if key in paths else []
    places = [n5_place(_dataset_at(group, paths[k]), above, layout, k) for k in numbers]
    place = places[paths.index(key)] if numbers else n5_place(attributes, above, layout, None)
    at = at_channel(layout, location, options.channel)
    store = open_store(location)
    return ChunkedVolume(
        location,
        place,
        at,
        dtype,
        array,
        layout.zyx(block),
        open_n5,
        options,
        tuple(one.voxel_nm for one in places),
        _watch=MetadataWatch(store, location, (METADATA,)),
        grid=ChunkGrid(store, at, block, array.fill, _key),
    )


def _key(number: tuple[int, ...]) -> str:
    return "/".join(map(str, number))


def _group_above(group: str) -> Mapping[str, Any]:
    """Attributes of the group of a dataset; empty if it is none that can be read."""
    try:
        return json_at(group, METADATA) or {}
    except SourceError:
        return {}


def _dataset_at(group: str, path: str) -> Mapping[str, Any]:
    return json_at(f"{group}/{path}", METADATA) or {}


def _levels(location: str, attributes: Mapping[str, Any]) -> list[str]:
    """Paths of the levels of a group: those that it names, or s0, s1 .. as far as there are."""
    multiscales = attributes.get("multiscales")
    if isinstance(multiscales, list) and multiscales and multiscales[0].get("datasets"):
        return level_paths(multiscales[0])
    paths: list[str] = []
    while len(paths) < _MAX_LEVELS and "dimensions" in (json_at(f"{location}/s{len(paths)}", METADATA) or {}):
        paths.append(f"s{len(paths)}")
    return paths


def _datasets(folder: Path, prefix: str = "", depth: int = _DEPTH) -> Iterator[str]:
    """Paths of the datasets and multiscale groups below a folder, a few; no folders of chunks are entered."""
    found = 0
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    for name in names:
        attributes = json_at(str(folder / name), METADATA) or {}
        if "dimensions" in attributes or (folder / name / "s0" / METADATA).is_file():
            yield prefix + name
            found += 1
        elif depth and not name.isdecimal():
            yield from _datasets(folder / name, f"{prefix}{name}/", depth - 1)
        if found > _LISTED:
            return
