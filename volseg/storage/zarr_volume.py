"""Volumes to read: any Zarr 2 or 3 array, or a level of an OME-Zarr, on disk or behind a URL."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from zarr.storage import LocalStore

from volseg.errors import SourceError
from volseg.storage.axes import AxisLayout, at_channel, refuse_other_order
from volseg.storage.chunk_grid import ChunkGrid, lacks
from volseg.storage.object_client import reason_of
from volseg.storage.place import Placed
from volseg.storage.watch import FileWatch, MetadataWatch, Watched
from volseg.storage.zarr_array import open_array
from volseg.storage.zarr_metadata import read_metadata
from volseg.storage.zarr_store import missing_keys
from volseg.storage.zip_folder import ZipFolder

if TYPE_CHECKING:
    import zarr
    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx, ZyxFloat
    from volseg.storage.place import Place

GREY = ("uint8", "uint16", "int16", "float32")
LABELS = ("uint8", "uint16", "uint32", "uint64", "int16", "int32", "int64", "bool")


@dataclass(frozen=True)
class Volume(Placed, Watched):
    """A volume to read from, axes (z, y, x).

    Attributes:
        location: absolute path or URL of the array.
        place: voxel size and translation.
        levels_nm: voxel sizes of all levels, finest first, if the volume was opened as a level of an OME-Zarr.
        layout: where z, y and x lie in the array, and the channel.
        axes: names of the array's axes as the user stated them; None for those of the metadata.
    """

    location: str
    place: Place
    _array: zarr.Array[Any]
    layout: AxisLayout
    levels_nm: tuple[ZyxFloat | None, ...] = ()
    axes: tuple[str, ...] | None = None
    _watch: MetadataWatch | FileWatch | None = field(default=None, repr=False, compare=False)

    @property
    def shape(self) -> Zyx:
        """Voxels along z, y, x."""
        return self.layout.volume_shape

    @property
    def channel(self) -> int | None:
        """Index along the channel axis; None if there is no such axis."""
        return None if self.layout.channel_axis is None else self.layout.channel

    @property
    def dtype(self) -> str:
        """Name of the data type, such as `uint8`."""
        return str(self._array.dtype.name)

    @property
    def chunk(self) -> Zyx:
        """Unit of decoding, in voxels: the inner chunk of a sharded array."""
        return self.layout.zyx(self._array.chunks)

    @property
    def chunk_grid(self) -> ChunkGrid:
        """The chunks as the store names them."""
        array = self._array
        encode = array.metadata.encode_chunk_key
        return ChunkGrid(array.store, self.layout, array.shards or array.chunks, array.fill_value, encode)

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box in the array's data type, mirrored beyond the edges of the volume.

        Raises:
            SourceError: the voxels cannot be read or decoded, or chunks are missing and so are the metadata.
        """
        return self.read_checked(box)[0]

    def read_checked(self, box: Box) -> tuple[NDArray[Any], list[Zyx]]:
        """Read a box as `read` does; returns the numbers (z, y, x) of the missing chunks, read as the fill value, too.

        Raises:
            SourceError: as `read`.
        """
        missing: list[Zyx] = []
        try:
            voxels = self.layout.read(partial(self._read_stored, missing=missing), box, self.dtype)
        except Exception as error:  # each store and codec raises errors of its own
            raise SourceError(f"cannot read {box} of {self.location}: {reason_of(error)}") from error
        if missing:
            self.confirm()
        return voxels, missing

    def _read_stored(self, index: tuple[int | slice, ...], missing: list[Zyx]) -> Any:
        store = self._array.store
        with missing_keys() as keys:
            voxels = np.asarray(self._array[index])
        is_missing = partial(lacks, store) if isinstance(store, LocalStore | ZipFolder) else keys.__contains__
        if keys or isinstance(store, LocalStore | ZipFolder):
            missing += self.chunk_grid.missing(index, voxels, is_missing)
        return voxels

    def __reduce__(self) -> tuple[Any, tuple[str, tuple[str], None, int | None, tuple[str, ...] | None]]:
        return open_volume, (self.location, (self.dtype,), None, self.channel, self.axes)


def open_volume(
    location: str,
    dtypes: tuple[str, ...] = GREY,
    level: int | None = None,
    channel: str | int | None = None,
    axes: tuple[str, ...] | None = None,
) -> Volume:
    """Open a volume for reading.

    Args:
        location: a path or a URL (http, https, s3, gs, az, file) of a Zarr 2 or 3 array, or of an OME-Zarr group,
            whose finest level is the default. Leading axes of length 1 (time, channel) are skipped.
        dtypes: supported data types; by default those of grey values.
        level: level of an OME-Zarr group, 0 for the finest.
        channel: name in the OME-Zarr metadata, or index, along a channel axis.
        axes: names of the array's last axes, in their order; by default those of the metadata.

    Raises:
        SourceError: nothing there, not a Zarr, not a volume with axes (z, y, x), or another data type.
        ConfigError: no such level or channel.
    """
    metadata = read_metadata(location, level, axes)
    location = metadata.location
    if metadata.dtype not in dtypes:
        raise SourceError(f"{location} holds {metadata.dtype}; supported types: {', '.join(dtypes)}")
    if axes is None:
        refuse_other_order(metadata.layout, location)
    array, location = open_array(location), location if "://" in location else str(Path(location).resolve())
    return Volume(
        location,
        metadata.place,
        array,
        at_channel(metadata.layout, location, channel, metadata.channel_labels),
        metadata.levels_nm,
        axes,
        _watch(array.store, location),
    )


def _watch(store: Any, location: str) -> MetadataWatch | FileWatch:
    return FileWatch([store.path], location) if isinstance(store, ZipFolder) else MetadataWatch(store, location)
