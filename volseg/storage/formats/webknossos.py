"""Layers of WEBKNOSSOS datasets on disk: wkw, zarr and zarr3 magnifications, cut to the layer's bounding box."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.blocks import to_zyx
from volseg.errors import ConfigError, SourceError, VolsegError
from volseg.storage.array_volume import ChunkedVolume, refuse_dtype
from volseg.storage.axes import DEFAULT_OPTIONS, AxisLayout, ReadOptions, at_channel, axis_layout
from volseg.storage.chunk_grid import ChunkGrid
from volseg.storage.formats.json_files import json_at
from volseg.storage.formats.webknossos_metadata import METADATA, Layer, Mag, layers_of
from volseg.storage.formats.wkw_array import WkwArray
from volseg.storage.watch import MetadataWatch
from volseg.storage.zarr_array import open_array
from volseg.storage.zarr_node import read_node
from volseg.storage.zarr_store import open_store
from volseg.storage.zarr_volume import GREY, Volume

if TYPE_CHECKING:
    from collections.abc import Mapping

_MALFORMED = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)
_DEPTH = 4
"""Folders that a magnification may lie below its dataset."""
_NAMES = {3: ("x", "y", "z"), 4: ("c", "x", "y", "z")}


@dataclass(frozen=True)
class WebknossosVolume(Volume):
    """A Zarr magnification, cut to the bounding box."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open_webknossos, (self.location, (self.dtype,), ReadOptions(self.axes, self.channel))


def find_dataset(location: str) -> tuple[Path, Mapping[str, Any], str] | None:
    """Find the dataset that a path is, or is a layer or a magnification of: its folder, metadata, and the path inside.

    Raises:
        SourceError: its metadata cannot be read.
    """
    folder, inside = Path(location), ""
    for _ in range(_DEPTH):
        if (folder / METADATA).is_file():
            document = json_at(str(folder), METADATA) or {}
            return (folder, document, inside) if not inside or _names(document, inside) else None
        folder, inside = folder.parent, f"{folder.name}/{inside}".rstrip("/")
    return None


def open_webknossos(
    location: str,
    dtypes: tuple[str, ...] = GREY,
    options: ReadOptions = DEFAULT_OPTIONS,
    level: int | None = None,
) -> Volume | ChunkedVolume:
    """Open a layer of a dataset; its voxels are those of its bounding box, and lie where that says.

    Args:
        location: path of the dataset, if it has one layer, of a layer, or of one of its magnifications.
        dtypes: supported voxel types.
        options: channel, and axes if those of the metadata are wrong.
        level: number of the magnification, 0 for the finest, which is the default.

    Raises:
        SourceError: no dataset, several layers, invalid metadata, another type, or a package is not installed.
        ConfigError: no such level, or options that do not fit it.
    """
    location = str(Path(location).absolute())
    found = find_dataset(location)
    if found is None:
        raise SourceError(f"{location} is no layer of a WEBKNOSSOS dataset; name the folder with its {METADATA}")
    folder, document, inside = found
    try:
        layer, mag = _select_magnification(location, layers_of(document), inside, level)
        path = next((folder / one for one in mag.paths if (folder / one).is_dir()), None)
        if path is None:
            raise SourceError(f"{folder / mag.paths[0]} does not exist, though {METADATA} names it; copy it again")
        if layer.format in ("zarr", "zarr3"):
            return _open_zarr(path, layer, mag, dtypes, options)
        if layer.format == "wkw":
            return _open_wkw(path, layer, mag, dtypes, options)
        raise SourceError(f"layer {layer.name} of {folder} is stored as {layer.format}; name {path} itself")
    except VolsegError:
        raise
    except _MALFORMED as error:
        raise SourceError(f"{folder / METADATA} is invalid ({error}); repair it") from error


def _names(document: Mapping[str, Any], inside: str) -> bool:
    """Whether a path is that of a layer or a magnification."""
    try:
        return any(
            inside == layer.name or any(inside in mag.paths for mag in layer.mags) for layer in layers_of(document)
        )
    except _MALFORMED:
        return False


def _select_magnification(location: str, layers: list[Layer], inside: str, level: int | None) -> tuple[Layer, Mag]:
    """The layer and the magnification that are named."""
    for layer in layers:
        for mag in layer.mags:
            if inside and inside in mag.paths and inside != layer.name:
                if level is not None:
                    raise ConfigError(f"{location} is one magnification, so it has no level {level}; name its layer")
                return layer, mag
    named = [layer for layer in layers if layer.name == inside] or ([] if inside else layers)
    if len(named) != 1:
        names = ", ".join(layer.name for layer in layers)
        raise SourceError(f"{location} holds the layers {names}; name one of them, such as {location}/{layers[0].name}")
    (layer,) = named
    if not 0 <= (level or 0) < len(layer.mags):
        raise ConfigError(f"layer {layer.name} of {location} has no level {level or 0}; it has {len(layer.mags)}")
    return layer, layer.mags[level or 0]


def _open_zarr(path: Path, layer: Layer, mag: Mag, dtypes: tuple[str, ...], options: ReadOptions) -> Volume:
    location = str(path)
    node = read_node(location)
    if node is None or node.shape is None:
        raise SourceError(f"{location} is no Zarr array, though {METADATA} names it as one; copy it again")
    refuse_dtype(location, node.dtype or "", dtypes)
    names = mag.axes if len(mag.axes) == len(node.shape) else _NAMES.get(len(node.shape), ())
    layout = _cut(axis_layout(location, node.shape, names, options.axes), layer, mag, location)
    layout = at_channel(layout, location, options.channel)
    array = open_array(location)
    watch = MetadataWatch(array.store, location)  # type: ignore[arg-type]  # that of `open_store`
    return WebknossosVolume(location, layer.place(mag), array, layout, _levels(layer), options.axes, watch)


def _open_wkw(path: Path, layer: Layer, mag: Mag, dtypes: tuple[str, ...], options: ReadOptions) -> ChunkedVolume:
    location, array = str(path), WkwArray(path)
    refuse_dtype(location, array.dtype, dtypes)
    _, stop = layer.box(mag)
    layout = axis_layout(location, (array.channels, *stop), _NAMES[4], options.axes)
    layout = at_channel(_cut(layout, layer, mag, location), location, options.channel)
    store, cube = open_store(location), (array.channels, *[array.cube] * 3)
    return ChunkedVolume(
        location,
        layer.place(mag),
        layout,
        array.dtype,
        array,
        (array.block,) * 3,
        open_webknossos,
        options,
        _levels(layer),
        _watch=MetadataWatch(store, location, ("header.wkw",)),
        grid=ChunkGrid(store, layout, cube, 0, array.key),
    )


def _levels(layer: Layer) -> tuple[Any, ...]:
    return tuple(layer.place(mag).voxel_nm for mag in layer.mags)


def _cut(layout: AxisLayout, layer: Layer, mag: Mag, location: str) -> AxisLayout:
    """The layout of the layer's bounding box in an array, along the axes of the metadata.

    Raises:
        SourceError: the box is not inside the array.
    """
    first, stop = (values[::-1] for values in layer.box(mag))
    shape = layout.zyx(layout.shape)
    # The array of a coarse magnification may lack the last voxel of a box that does not end on a whole one.
    stop = tuple(min(b, n) if b - n <= (max(mag.factors) > 1) else b for b, n in zip(stop, shape, strict=True))
    if any(not a < b <= n for a, b, n in zip(first, stop, shape, strict=True)):
        raise SourceError(
            f"{location} has {shape} voxels (z, y, x), outside of which the bounding box of layer {layer.name} lies: "
            f"{first} to {stop}; repair its {METADATA}, or copy its array elsewhere"
        )
    return replace(layout, origin=to_zyx(first), extent=to_zyx(b - a for a, b in zip(first, stop, strict=True)))
