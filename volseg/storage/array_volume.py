"""Volumes of any array that can be indexed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from zarr.storage import LocalStore

from volseg.errors import SourceError
from volseg.storage.axes import DEFAULT_OPTIONS, ReadOptions
from volseg.storage.chunk_grid import lacks
from volseg.storage.object_client import reason_of
from volseg.storage.place import Placed
from volseg.storage.watch import Watched
from volseg.storage.zarr_store import is_missing_remote

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx, ZyxFloat
    from volseg.storage.axes import AxisLayout
    from volseg.storage.chunk_grid import ChunkGrid
    from volseg.storage.place import Place
    from volseg.storage.watch import Watch

_WIDER = {"int8": "int16", "float16": "float32"}
"""Types that are read as a wider one, which holds all of their values."""


@dataclass(frozen=True)
class ArrayVolume(Placed, Watched):
    """A volume to read from, axes (z, y, x).

    Attributes:
        location: absolute path or URL, which `reopen` opens again.
        place: voxel size and translation.
        layout: where z, y and x lie in the array, and the channel.
        stored_dtype: type of the array.
        stored: returns the array at an index of integers and slices.
        chunk: voxels (z, y, x) that are decoded together.
        reopen: opens the volume from its location, types and options.
        options: what the user states of it.
        levels_nm: voxel sizes of all levels, finest first, if it has levels.
        note: what is assumed of it, for the screen; empty if nothing is.
        is_decoded_whole: whether the first read decodes all voxels.
    """

    location: str
    place: Place
    layout: AxisLayout
    stored_dtype: str
    stored: Callable[[tuple[int | slice, ...]], Any] = field(repr=False)
    chunk: Zyx
    reopen: Callable[..., Any] = field(repr=False)
    options: ReadOptions = DEFAULT_OPTIONS
    levels_nm: tuple[ZyxFloat | None, ...] = ()
    note: str = ""
    is_decoded_whole: bool = False
    _watch: Watch | None = field(default=None, repr=False, compare=False)

    @property
    def shape(self) -> Zyx:
        """Voxels along z, y, x."""
        return self.layout.volume_shape

    @property
    def dtype(self) -> str:
        """Name of the data type as read, such as `uint8`."""
        return read_dtype(self.stored_dtype)

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box, mirrored beyond the edges of the volume.

        Raises:
            SourceError: the voxels cannot be read or decoded.
        """
        return self._read(self.stored, box)

    def _read(self, stored: Callable[[tuple[int | slice, ...]], Any], box: Box) -> NDArray[Any]:
        try:
            return self.layout.read(stored, box, self.dtype)
        except SourceError:
            raise
        except Exception as error:  # libraries raise errors of many kinds
            raise SourceError(f"cannot read {box} of {self.location}: {reason_of(error):.400}") from error

    def __reduce__(self) -> tuple[Any, tuple[str, tuple[str], ReadOptions]]:
        return self.reopen, (self.location, (self.dtype,), self.options)


@dataclass(frozen=True)
class ChunkedVolume(ArrayVolume):
    """A volume whose store names its chunks.

    Attributes:
        grid: the chunks.
    """

    grid: ChunkGrid | None = None

    @property
    def chunk_grid(self) -> ChunkGrid:
        """The chunks as the store names them."""
        assert self.grid is not None
        return self.grid

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box, mirrored beyond the edges of the volume.

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
        voxels = self._read(partial(self._read_stored, missing=missing), box)
        if missing:
            self.confirm()
        return voxels, missing

    def _read_stored(self, index: tuple[int | slice, ...], missing: list[Zyx]) -> Any:
        voxels = np.asarray(self.stored(index))
        missing += self.chunk_grid.missing(index, voxels, partial(_is_missing, self.chunk_grid))
        return voxels


def _is_missing(grid: ChunkGrid, key: str) -> bool:
    if grid.probe is not None:
        return grid.probe(key) is False
    return lacks(grid.store, key) if isinstance(grid.store, LocalStore) else is_missing_remote(grid.store, key)


def read_dtype(stored: str) -> str:
    """The type that voxels are read as: that which is stored, or the next one that volseg has.

    >>> read_dtype("int8"), read_dtype("uint64")
    ('int16', 'uint64')
    """
    return _WIDER.get(stored, stored)


def refuse_dtype(location: str, stored: str, dtypes: tuple[str, ...]) -> None:
    """Refuse a voxel type.

    Raises:
        SourceError: names those that are supported.
    """
    if read_dtype(stored) not in dtypes:
        raise SourceError(f"{location} holds {stored}; supported types: {', '.join(dtypes)}")
