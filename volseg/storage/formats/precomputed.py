"""Neuroglancer precomputed volumes: raw, JPEG, PNG and compressed segmentation, sharded or not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from posixpath import normpath
from typing import TYPE_CHECKING, Any

from volseg.errors import ConfigError, SourceError, VolsegError
from volseg.storage.array_volume import ChunkedVolume, refuse_dtype
from volseg.storage.axes import DEFAULT_OPTIONS, ReadOptions, at_channel, axis_layout
from volseg.storage.chunk_grid import ChunkGrid
from volseg.storage.formats.gzip_chunks import GzipArray, compressed_suffix
from volseg.storage.formats.json_files import json_at, sizes_of, whole_numbers
from volseg.storage.formats.tensorstore_array import TensorArray, kvstore
from volseg.storage.ome_zarr import level_paths
from volseg.storage.place import Place
from volseg.storage.watch import MetadataWatch
from volseg.storage.zarr_metadata import absolute_location
from volseg.storage.zarr_store import open_store
from volseg.storage.zarr_volume import GREY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from volseg.storage.axes import AxisLayout

METADATA = "info"
_NAMES = ("x", "y", "z", "c")
_VOLUME = "neuroglancer_multiscale_volume"
_MALFORMED = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)
_DEPTH = 4
"""Folders that a scale may lie below its info."""


@dataclass(frozen=True)
class Scale:
    """A scale of a volume; values along x, y, z.

    Attributes:
        key: its folder, below the volume's.
        size: voxels.
        offset: of the first voxel, in voxels.
        resolution: of a voxel, in nanometres.
        chunk: voxels of a chunk.
        encoding: of the chunks.
        is_sharded: whether chunks lie in shards.
    """

    key: str
    size: tuple[int, ...]
    offset: tuple[int, ...]
    resolution: tuple[float, ...]
    chunk: tuple[int, ...]
    encoding: str
    is_sharded: bool

    def place(self, finest: tuple[float, ...]) -> Place:
        """Voxel size, and the centre of the first voxel, where that of the finest scale is at its offset."""
        start = [a * b + (b - c) / 2 for a, b, c in zip(self.offset, self.resolution, finest, strict=True)]
        return Place.stated(self.resolution[::-1], start[::-1], ["nm"] * 3)

    def name(self, number: tuple[int, ...], suffix: str = "") -> str:
        """File of a chunk in the scale's folder; in shards, its first voxel along x, y, z, channel."""
        if self.is_sharded:
            return ",".join(str(n * c) for n, c in zip(number, (*self.chunk, 1), strict=True))
        sides = zip(number, self.chunk, self.size, self.offset, strict=False)
        return "_".join(f"{n * c + first}-{min((n + 1) * c, size) + first}" for n, c, size, first in sides) + suffix


def find_scale(location: str) -> tuple[str, Mapping[str, Any], str] | None:
    """Find the volume that a location is, or is a scale of: its location, its info and the scale's key, or empty.

    Raises:
        SourceError: the info cannot be read.
    """
    base, key = location, ""
    for _ in range(_DEPTH):
        info = json_at(base, METADATA)
        if info is not None and isinstance(info.get("scales"), list) and (not key or _has_key(info, key)):
            return base, info, key
        if info is not None and not key:
            return base, info, key
        above, _, name = base.rpartition("/")
        if not above or above.endswith(":/"):
            return None
        base, key = above, f"{name}/{key}".rstrip("/")
    return None


def has_info(location: str) -> bool:
    """Whether a path or URL has the info of a volume, or is one of its scales; also if the info cannot be read."""
    try:
        return find_scale(location) is not None
    except SourceError:
        return "://" not in location and os.path.isfile(f"{location}/{METADATA}")  # noqa: PTH113


def open_precomputed(
    location: str,
    dtypes: tuple[str, ...] = GREY,
    options: ReadOptions = DEFAULT_OPTIONS,
    level: int | None = None,
) -> ChunkedVolume:
    """Open a volume at one of its scales.

    Args:
        location: path or URL of the folder with the info, or of one of its scales.
        dtypes: supported voxel types.
        options: channel, if it has several.
        level: number of the scale, 0 for the first, which is the default.

    Raises:
        SourceError: no volume, invalid metadata, another type, or tensorstore is not installed.
        ConfigError: no such level, or options that do not fit it.
    """
    location = absolute_location(location)
    found = find_scale(location)
    if found is None:
        raise SourceError(f"{location} is no Neuroglancer precomputed volume; name the folder with its info")
    base, info, key = found
    if info.get("@type", _VOLUME) != _VOLUME or not info.get("scales"):
        raise SourceError(f"{base} holds {info.get('@type', 'no scales')}, and no volume; name a volume's folder")
    if key and level is not None:
        raise ConfigError(f"{location} is one scale, so it has no level {level}; name {base}")
    try:
        scales = [_scale(entry) for entry in info["scales"]]
        number = [scale.key for scale in scales].index(normpath(key)) if key else level or 0
        if not 0 <= number < len(scales):
            raise ConfigError(f"{base} has no level {number}; it has levels 0 to {len(scales) - 1}")
        return _open_scale(base, info, scales, number, dtypes, options)
    except VolsegError:
        raise
    except _MALFORMED as error:
        raise SourceError(f"{base} has an invalid info ({error}); repair it") from error


def _has_key(info: Mapping[str, Any], key: str) -> bool:
    return any(isinstance(one, dict) and normpath(str(one.get("key"))) == normpath(key) for one in info["scales"])


def _scale(entry: Mapping[str, Any]) -> Scale:
    (key,) = level_paths({"datasets": [{"path": entry["key"]}]})  # refuses one that leaves the folder
    chunks = entry["chunk_sizes"]
    scale = Scale(
        normpath(key),
        sizes_of(entry, "size"),
        whole_numbers({"voxel_offset": [0, 0, 0], **entry}, "voxel_offset"),
        tuple(float(value) for value in entry["resolution"]),
        sizes_of({"chunk_sizes": chunks[0]}, "chunk_sizes"),
        str(entry["encoding"]),
        entry.get("sharding") is not None,
    )
    if {len(scale.size), len(scale.offset), len(scale.resolution), len(scale.chunk)} != {3}:
        raise ValueError(f"scale {key} does not state three values of each kind")
    return scale


def _open_scale(
    base: str, info: Mapping[str, Any], scales: list[Scale], number: int, dtypes: tuple[str, ...], options: ReadOptions
) -> ChunkedVolume:
    scale, dtype, channels = (
        scales[number],
        str(info["data_type"]).lower(),
        sizes_of({"n": [info["num_channels"]]}, "n"),
    )
    location = f"{base}/{scale.key}"
    refuse_dtype(location, dtype, dtypes)
    if scale.encoding in ("jpeg", "jxl") and "float32" not in dtypes and "uint64" in dtypes:
        raise SourceError(f"{location} is compressed as JPEG, whose values are not exact; store labels otherwise")
    # The user may leave the channel out.
    stated = None if options.axes is None else (*options.axes, *_NAMES[len(options.axes) :])
    layout = axis_layout(location, (*scale.size, *channels), _NAMES, stated)
    order = [_NAMES.index("z") - axis for axis in layout.axes]  # of z, y, x in a place along the stored z, y, x
    layout = at_channel(layout, location, options.channel)
    spec = {"driver": "neuroglancer_precomputed", "kvstore": kvstore(base), "scale_index": number}
    array, suffix = TensorArray(location, spec), "" if scale.is_sharded else compressed_suffix(location)
    stored: TensorArray | GzipArray = array
    if suffix:
        stored = GzipArray(location, info, number, scale.name, (*scale.chunk, *channels))
    return ChunkedVolume(
        location,
        scale.place(scales[0].resolution).transposed(order),
        layout,
        dtype,
        stored,
        layout.zyx((*scale.chunk, *channels)),
        open_precomputed,
        options,
        tuple(one.place(one.resolution).transposed(order).voxel_nm for one in scales),
        _watch=MetadataWatch(open_store(base), base, (METADATA,)),
        grid=_grid(location, scale, layout, channels, array, suffix),
    )


def _grid(
    location: str, scale: Scale, layout: AxisLayout, channels: tuple[int, ...], array: TensorArray, suffix: str
) -> ChunkGrid:
    probe = partial(_has, array) if scale.is_sharded else None
    store = open_store(location) if scale.is_sharded or "://" in location or os.path.isdir(location) else None  # noqa: PTH112
    if store is None:
        raise SourceError(f"{location} does not exist, though the info names it; check the path, or the mount")
    encode = partial(scale.name, suffix=suffix)
    return ChunkGrid(store, layout, (*scale.chunk, *channels), 0, encode, probe)


def _has(array: TensorArray, key: str) -> bool | None:
    """Whether a chunk is in its shard, from its first voxel."""
    return array.has(tuple(map(int, key.split(","))))
