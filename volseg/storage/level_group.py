"""OME-Zarr groups that get coarser levels: their finest level, names that are free, and arrays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import count as counting
from os.path import normpath
from typing import TYPE_CHECKING, Any

import numcodecs  # type: ignore[import-untyped]
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from volseg.blocks import coarser_place
from volseg.errors import SourceError
from volseg.storage import ome_zarr
from volseg.storage.metadata_file import read_metadata
from volseg.storage.zarr_node import read_node
from volseg.text import parse_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from volseg.blocks import Level

_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<number>\d+)(?P<suffix>\D*)")
_CODECS = ("blosc", "zstd", "lz4", "gzip", "zlib", "bz2")
"""Compressors of Zarr 2 that lose nothing and take any type."""


@dataclass(frozen=True)
class LevelGroup:
    """An OME-Zarr image, 0.4 or 0.5, in a folder.

    Attributes:
        path: of the group.
        is_v2: whether its arrays are of Zarr format 2.
        multiscale: its first one.
        paths: of the levels, finest first.
        is_label: whether the group says that it holds labels, or lies in a group `labels`.
    """

    path: Path
    is_v2: bool
    multiscale: Mapping[str, Any]
    paths: tuple[str, ...]
    is_label: bool

    @property
    def finest(self) -> str:
        """Path of the finest level in the group."""
        return self.paths[0]

    @property
    def metadata_file(self) -> Path:
        """A file that every such group has, to lock."""
        return self.path / (".zgroup" if self.is_v2 else "zarr.json")

    @property
    def array(self) -> dict[str, Any]:
        """Metadata of the finest level's array."""
        return read_document(self.path / self.finest / (".zarray" if self.is_v2 else "zarr.json"))

    @property
    def is_sharded(self) -> bool:
        """Whether the finest level has shards."""
        codecs = self.array.get("codecs") or []
        return any(isinstance(codec, dict) and codec.get("name") == "sharding_indexed" for codec in codecs)

    def style(self) -> str:
        """Pattern of the names of levels, for `glob`."""
        match = _NUMBERED.fullmatch(self.finest)
        prefix, suffix = (match["prefix"], match["suffix"]) if match else (f"{self.finest}_", "")
        return "*".join(re.sub(r"([*?[])", r"[\1]", part) for part in (prefix, suffix))

    def free_names(self, number: int) -> tuple[str, ...]:
        """Names of new levels in the style of the finest one: s1, s2 after s0, or higher numbers if these are taken."""
        match = _NUMBERED.fullmatch(self.finest)
        prefix, first, suffix = match.groups() if match else (f"{self.finest}_", "0", "")
        own = self.finest.partition("/")[0]
        for start in counting(int(first) + 1):
            names = tuple(f"{prefix}{start + k:0{len(first)}d}{suffix}" for k in range(number))
            tops = {name.partition("/")[0] for name in names} - {own}
            if not any((self.path / name).exists() for name in (*names, *tops)) and not set(names) & set(self.paths):
                return names
        raise AssertionError

    def lists(self, names: Sequence[str]) -> bool:
        """Whether the levels of the image are the finest one and these."""
        return [normpath(path) for path in self.paths[1:]] == list(names)

    def transformations(self, scale: Sequence[int]) -> list[dict[str, Any]]:
        """Scale and translation of a level, of whose voxels each is made of `scale` voxels of the finest one (z, y, x).

        The transformations of the multiscale are applied after those of a level, and stay as they are.

        Raises:
            ValueError: the finest level has others than scales and translations.
        """
        axes = len(self.array["shape"])
        size, start = [1.0] * axes, [0.0] * axes
        for one in self.multiscale["datasets"][0].get("coordinateTransformations") or ():
            kind = one["type"]
            if kind == "identity":
                continue
            if kind not in ("scale", "translation") or len(one.get(kind) or ()) != axes:
                raise ValueError(f"transformation {one} of level {self.finest!r}")
            if kind == "scale":
                size = [a * float(b) for a, b in zip(size, one["scale"], strict=True)]
                start = [a * float(b) for a, b in zip(start, one["scale"], strict=True)]
            else:
                start = [a + float(b) for a, b in zip(start, one["translation"], strict=True)]
        size[-3:], start[-3:] = coarser_place(size[-3:], start[-3:], (scale[0], scale[1], scale[2]))
        found: list[dict[str, Any]] = [{"type": "scale", "scale": size}]
        return [*found, {"type": "translation", "translation": start}] if any(start) else found


def open_level_group(path: Path) -> LevelGroup:
    """Open an image, or the first one of what bioformats2raw wrote.

    Raises:
        SourceError: there is none, or its metadata are invalid.
    """
    node = read_node(str(path))
    multiscale = None if node is None else ome_zarr.multiscale_of(node.attributes)
    if node is not None and multiscale is None and ome_zarr.is_bioformats2raw(node.attributes):
        path = path / "0"
        node = read_node(str(path))
        multiscale = None if node is None else ome_zarr.multiscale_of(node.attributes)
    if node is None or node.shape is not None or multiscale is None:
        if node is not None and node.shape is not None:
            raise SourceError(f"{path} is one array, which has no levels; name the OME-Zarr group above it")
        raise SourceError(f"{path} is not an OME-Zarr image; name one, or make one with: volseg convert")
    try:
        paths = tuple(ome_zarr.level_paths(multiscale))
        group = LevelGroup(path, node.format == "zarr2", multiscale, paths, _is_label(path, node.attributes))
        if normpath(group.finest) == ".":
            raise ValueError("its finest level is the group itself")
        group.transformations((1, 1, 1))
    except (AttributeError, IndexError, KeyError, OSError, TypeError, ValueError) as error:
        raise SourceError(f"{path} has OME-Zarr metadata to which no level can be added: {error!r}") from None
    return group


def _is_label(path: Path, attributes: Mapping[str, Any]) -> bool:
    ome = attributes.get("ome")
    stated = "image-label" in attributes or (isinstance(ome, dict) and "image-label" in ome)
    return stated or path.parent.name == "labels"


def create_levels(
    group: LevelGroup, names: Sequence[str], levels: Sequence[Level], dtype: str, *, sharded: bool
) -> None:
    """Create the arrays of new levels that are not there yet; the group does not list them.

    Args:
        group: of the levels.
        names: of the levels.
        levels: their shapes, shards and chunks.
        dtype: of a voxel.
        sharded: whether they have shards.

    Raises:
        OSError: they cannot be written.
    """
    finest = group.array
    leading, ones = tuple(finest["shape"][:-3]), (1,) * (len(finest["shape"]) - 3)
    options: dict[str, Any]
    if group.is_v2:
        stated = read_document(group.path / group.finest / ".zattrs", {}).get("_ARRAY_DIMENSIONS")
        compressor = finest.get("compressor")
        known = compressor is not None and compressor.get("id") in _CODECS
        options = {
            "zarr_format": 2,
            "compressors": numcodecs.get_codec(compressor) if known else numcodecs.Blosc("zstd", 3),
            "chunk_key_encoding": {"name": "v2", "separator": _separator(group, finest)},
            "attributes": {"_ARRAY_DIMENSIONS": stated} if stated else None,
        }
    else:
        options = {
            "zarr_format": 3,
            # Readers that know no shards often know no codec of checksums either.
            "compressors": [ZstdCodec(level=3), Crc32cCodec()] if sharded else [ZstdCodec(level=3, checksum=True)],
            "dimension_names": ome_zarr.axis_names(group.multiscale) or finest.get("dimension_names"),
        }
    root = zarr.open_group(group.path, mode="r+", use_consolidated=False)
    for name, level in zip(names, levels, strict=True):
        folder = group.path / name
        if (folder / (".zarray" if group.is_v2 else "zarr.json")).is_file():
            continue
        if "/" in name:
            root.require_group(name.rpartition("/")[0])
        zarr.create_array(
            folder,
            shape=leading + level.shape,
            shards=ones + level.shard if sharded else None,
            chunks=ones + level.chunk,
            dtype=dtype,
            fill_value=0,
            **options,
        )


def _separator(group: LevelGroup, finest: Mapping[str, Any]) -> str:
    """What stands between the numbers in names of chunks; OME-Zarr asks for folders where nothing is stated."""
    return str(finest.get("dimension_separator") or "/")


def read_document(file: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON object.

    Raises:
        OSError, ValueError: there is none, and no default.
    """
    try:
        return parse_object(read_metadata(file))
    except FileNotFoundError:
        if default is None:
            raise
        return default
