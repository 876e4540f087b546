"""Volumes to read: any Zarr 2 or 3 array, or a level of an OME-Zarr, on disk or behind a URL."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr
from zarr.storage import LocalStore

from volseg.blocks import Box, Zyx, ZyxFloat, mirror_span
from volseg.errors import ConfigError, SourceError
from volseg.ops import reflect_gather
from volseg.storage.place import Placed
from volseg.storage.zarr_metadata import VolumeMetadata, read_metadata
from volseg.storage.zarr_store import open_store
from volseg.text import did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.storage.place import Place

GREY = ("uint8", "uint16", "int16", "float32")
LABELS = ("uint8", "uint16", "uint32", "uint64", "int16", "int32", "int64", "bool")


@dataclass(frozen=True)
class Volume(Placed):
    """A volume to read from, axes (z, y, x).

    Attributes:
        location: absolute path or URL of the array.
        place: voxel size and translation.
        levels_nm: voxel sizes of all levels, finest first, if the volume was opened as a level of an OME-Zarr.
        channel: index along the channel axis; None if there is no such axis.
    """

    location: str
    place: Place
    _array: zarr.Array[Any]
    levels_nm: tuple[ZyxFloat | None, ...] = ()
    channel: int | None = None

    @property
    def shape(self) -> Zyx:
        """Voxels along z, y, x."""
        z, y, x = self._array.shape[-3:]
        return z, y, x

    @property
    def dtype(self) -> str:
        """Name of the data type, such as `uint8`."""
        return str(self._array.dtype.name)

    @property
    def chunk(self) -> Zyx:
        """Unit of decoding, in voxels: the inner chunk of a sharded array."""
        z, y, x = self._array.chunks[-3:]
        return z, y, x

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box in the array's data type, mirrored beyond the edges of the volume.

        Raises:
            SourceError: the voxels cannot be read or decoded.
        """
        spans = [mirror_span(a, b, n) for a, b, n in zip(box.start, box.stop, self.shape, strict=True)]
        inner = tuple(slice(low, high) for low, high in spans)
        leading = tuple(0 if n == 1 else (self.channel or 0) for n in self._array.shape[:-3])
        try:
            stored: Any = self._array[leading + inner]
        except Exception as error:  # each store and codec raises errors of its own
            raise SourceError(f"cannot read {box} of {self.location}: {type(error).__name__}: {error}") from error
        return reflect_gather(stored, [low for low, _ in spans], box.start, box.stop, self.shape)

    def __reduce__(self) -> tuple[Any, tuple[str, tuple[str], None, int | None]]:
        return open_volume, (self.location, (self.dtype,), None, self.channel)


def open_volume(
    location: str, dtypes: tuple[str, ...] = GREY, level: int | None = None, channel: str | int | None = None
) -> Volume:
    """Open a volume for reading.

    Args:
        location: a path or a URL (http, https, s3, gs, az, file) of a Zarr 2 or 3 array, or of an OME-Zarr group,
            whose finest level is the default. Leading axes of length 1 (time, channel) are skipped.
        dtypes: supported data types; by default those of grey values.
        level: level of an OME-Zarr group, 0 for the finest.
        channel: name in the OME-Zarr metadata, or index, along a channel axis before z.

    Raises:
        SourceError: nothing there, not a Zarr, not a volume with axes (z, y, x), or another data type.
        ConfigError: no such level or channel.
    """
    metadata = read_metadata(location, level)
    location = metadata.location
    if metadata.dtype not in dtypes:
        raise SourceError(f"{location} holds {metadata.dtype}; supported types: {', '.join(dtypes)}")
    return Volume(
        location if "://" in location else str(Path(location).resolve()),
        metadata.place,
        _open_array(location),
        metadata.levels_nm,
        _channel_index(metadata, channel),
    )


def _channel_index(metadata: VolumeMetadata, channel: str | int | None) -> int | None:
    """Find a channel by its name or number; None if there is no channel axis."""
    names = metadata.channels
    if channel is None and metadata.channel_axis is None:
        return None
    if channel is None:
        raise SourceError(
            f"{metadata.location} has shape {metadata.array.shape}, which is not one volume of axes (z, y, x); choose "
            f"one of its channels ({', '.join(names)}) if the command has --channel, or store it as an array of its own"
        )
    name = str(channel)
    index = names.index(name) if name in names else int(name) if name.isdecimal() else len(names)
    if index >= len(names):
        hint = did_you_mean(name, names)
        raise ConfigError(f"{metadata.location} has no channel {name}{hint}; choose from {', '.join(names)}")
    return None if metadata.channel_axis is None else index


def _open_array(location: str) -> zarr.Array[Any]:
    store = open_store(location)
    # Behind a URL zarr's own pipeline fetches chunks concurrently without blocking Python; zarrs would block it.
    pipeline = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"} if isinstance(store, LocalStore) else {}
    with warnings.catch_warnings(), zarr.config.set(pipeline):
        # zarrs reads halo boxes faster; for a codec that it does not support it warns and uses zarr's own pipeline.
        warnings.filterwarnings("ignore", message="Array is unsupported by ZarrsCodecPipeline")
        try:
            return zarr.open_array(store=store, mode="r")
        except Exception as error:  # each store and codec raises errors of its own
            raise SourceError(f"cannot open {location}: {type(error).__name__}: {error}") from error
