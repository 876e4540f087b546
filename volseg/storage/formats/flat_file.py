"""Voxels that lie one after another in a file, as in MRC, NRRD and NIfTI: mapped, or decoded into a temporary file."""

from __future__ import annotations

import bz2
import gzip
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from volseg.errors import SourceError
from volseg.storage.array_volume import ArrayVolume, refuse_dtype
from volseg.storage.axes import at_channel, axis_layout
from volseg.storage.memmap import shared_memmap
from volseg.storage.place import Place
from volseg.storage.watch import FileWatch
from volseg.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.storage.axes import AxisLayout, ReadOptions
    from volseg.storage.memmap import MemmapFile

_PART = 16 << 20
"""Bytes that are decoded at a time."""


@dataclass(frozen=True)
class FlatFile:
    """An array in a file, and what its header says of it, along the stored axes in C order.

    Attributes:
        path: of the file with the voxels.
        start: first byte of the voxels, or of their compressed stream.
        shape: of the array.
        dtype: of the voxels, in their byte order.
        names: of the axes.
        sizes: of a voxel.
        starts: place of the first voxel.
        units: of sizes and starts; None where none is stated.
        compression: of the stream.
        skip: bytes before the voxels in the decoded stream.
        scaling: factor and offset of stored values; None if they are the values.
        note: what is assumed, for the screen.
        header: file of the header, if it is another one.
    """

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    names: tuple[str, ...]
    sizes: Sequence[float] | None = None
    starts: Sequence[float] = ()
    units: Sequence[object] = ()
    compression: Literal["", "gzip", "bzip2"] = ""
    skip: int = 0
    scaling: tuple[float, float] | None = None
    note: str = ""
    header: Path | None = None

    @property
    def bytes(self) -> int:
        """Size of the voxels, decoded."""
        return prod(self.shape) * self.dtype.itemsize

    def place(self, layout: AxisLayout) -> Place:
        """Voxel size and translation, as the header states them."""
        if self.sizes is None:
            return Place()
        starts = self.starts or [0.0] * len(self.sizes)
        return Place.stated(layout.zyx(list(self.sizes)), layout.zyx(list(starts)), layout.zyx(list(self.units)))


def open_flat(
    location: Path, flat: FlatFile, dtypes: tuple[str, ...], options: ReadOptions, reopen: Callable[..., Any]
) -> ArrayVolume:
    """Open an array in a file as a volume; no voxel is read.

    Args:
        location: path of the volume.
        flat: what its header says.
        dtypes: supported voxel types.
        options: axes and channel.
        reopen: opens the volume again from location, types and options.

    Raises:
        SourceError: another type or shape, or the file ends before its voxels.
        ConfigError: options that do not fit it.
    """
    stored = "float32" if flat.scaling else flat.dtype.name
    refuse_dtype(str(location), stored, dtypes)
    layout = at_channel(
        axis_layout(str(location), flat.shape, flat.names, options.axes), str(location), options.channel
    )
    array: _Mapped | _Decoded
    watch = FileWatch([path for path in (flat.path, flat.header) if path is not None], str(location))
    if flat.compression:
        array, chunk = _Decoded(flat, f"{location} {watch.states}"), (1, *layout.volume_shape[1:])
        assumed = (
            f"it is compressed, so each host decodes it into a temporary file of {flat.bytes / 1e9:.1f} GB before the "
            "first block; for several runs, convert it once with: volseg convert"
        )
        note = f"{flat.note}; {assumed}" if flat.note else assumed
    else:
        if flat.path.stat().st_size < flat.start + flat.bytes:
            raise SourceError(f"{flat.path} is cut short: it ends before its voxels do; copy it again")
        array, chunk, note = _Mapped(flat), (1, *layout.volume_shape[1:]), flat.note
    scaled = array if flat.scaling is None else _Scaled(array, *flat.scaling)
    note = f"{location}: {note}" if note else ""
    place = flat.place(layout)
    return ArrayVolume(
        str(location), place, layout, stored, scaled, chunk, reopen, options, (), note, bool(flat.compression), watch
    )


class _Mapped:
    """Voxels of a file, mapped at the first read."""

    def __init__(self, flat: FlatFile) -> None:
        self._flat = flat

    def __call__(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        return np.asarray(self._array[index])

    @cached_property
    def _array(self) -> NDArray[Any]:
        flat = self._flat
        return np.memmap(flat.path, flat.dtype, "r", flat.start, flat.shape)


class _Decoded:
    """Voxels of a compressed file; the first read decodes them for all processes of the host."""

    def __init__(self, flat: FlatFile, key: str) -> None:
        self._flat, self._key = flat, key

    def __call__(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        return np.asarray(self._file.array[index])

    @cached_property
    def _file(self) -> MemmapFile:
        flat = self._flat
        key = f"{__version__} {self._key} {replace(flat, note='')}"
        return shared_memmap(key, flat.shape, flat.dtype.newbyteorder("=").str, self._parts)

    def _parts(self) -> Iterator[NDArray[Any]]:
        flat, left = self._flat, self._flat.bytes
        try:
            with flat.path.open("rb") as file, _opened(file, flat) as stream:
                stream.read(flat.skip)
                while left:
                    part = stream.read(min(left, _PART))
                    if len(part) != min(left, _PART):
                        raise EOFError("it ends before its voxels do")
                    left -= len(part)
                    yield np.frombuffer(part, flat.dtype).astype(flat.dtype.newbyteorder("="))
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise SourceError(f"{flat.path} is damaged or cut short ({error}); copy it again") from error


def _opened(file: BinaryIO, flat: FlatFile) -> gzip.GzipFile | bz2.BZ2File:
    file.seek(flat.start)
    return gzip.GzipFile(fileobj=file) if flat.compression == "gzip" else bz2.BZ2File(file)


class _Scaled:
    """Values from stored ones, as float32."""

    def __init__(self, array: Callable[..., Any], factor: float, offset: float) -> None:
        self._array, self._factor, self._offset = array, factor, offset

    def __call__(self, index: tuple[int | slice, ...]) -> NDArray[np.float32]:
        return np.asarray(self._array(index) * np.float64(self._factor) + self._offset, np.float32)


def shortest_decimal(value: Any) -> float:
    """Return the shortest decimal number that is stored as a float32.

    >>> shortest_decimal(np.float32(0.004))
    0.004
    """
    return float(str(np.float32(value)))


def axis_aligned(directions: NDArray[Any], origin: Sequence[float], what: str) -> tuple[list[float], list[float], str]:
    """Voxel sizes and place of the first voxel, from the steps along each axis in space.

    Args:
        directions: a row for each axis (x, y, z): its step along x, y, z of the space.
        origin: of the first voxel.
        what: name of the steps, for the note.

    Returns:
        Sizes, starts, and what is assumed: steps that are mirrored or turned are read in the order they are stored.
    """
    sizes = [float(size) for size in np.linalg.norm(directions, axis=1)]
    if np.allclose(directions, np.diag(sizes), atol=1e-6 * max(sizes)):
        return sizes, [float(start) for start in origin], ""
    return sizes, [0.0] * len(sizes), f"its {what} mirror or turn its axes; it is read as it is stored, and placed at 0"
