"""One way in for every kind of volume: Zarr, HDF5, a TIFF, or a folder of sections."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from volseg.blocks import Box
from volseg.errors import SourceError
from volseg.ops import read_reflected
from volseg.storage.hdf5 import is_hdf5, open_hdf5
from volseg.storage.image_stack import is_stack, open_stack
from volseg.storage.memmap import ArrayFile, temporary_array
from volseg.storage.zarr_volume import GREY, open_volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from volseg.blocks import Zyx, ZyxFloat
    from volseg.storage.image_stack import Stack

_SLAB = 16


class Readable(Protocol):
    """A volume of which boxes are read; it can be pickled, and worker processes open it again."""

    @property
    def location(self) -> str:
        """Where it is."""
        ...

    @property
    def shape(self) -> Zyx:
        """Voxels along z, y, x."""
        ...

    @property
    def dtype(self) -> str:
        """The type of a voxel, such as `uint8`."""
        ...

    @property
    def voxel_nm(self) -> ZyxFloat | None:
        """Its voxel size in nanometres; None where nothing states it."""
        ...

    @property
    def chunk(self) -> Zyx:
        """What is decoded at once."""
        ...

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box, mirrored where it leaves the volume, in the volume's own type."""
        ...


@dataclass(frozen=True)
class UnpackedStack:
    """A stack of sections, decoded once into a temporary file that worker processes share."""

    location: str
    _file: ArrayFile

    @property
    def shape(self) -> Zyx:
        """Sections, rows, columns."""
        z, y, x = self._file.array.shape
        return z, y, x

    @property
    def dtype(self) -> str:
        """The type of a voxel."""
        return str(self._file.array.dtype.name)

    @property
    def voxel_nm(self) -> ZyxFloat | None:
        """Image files state none that could be trusted."""
        return None

    @property
    def chunk(self) -> Zyx:
        """A section."""
        return (1, *self.shape[1:])

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box, mirrored where it leaves the volume."""
        return read_reflected(self._file.array, box.start, box.stop)


@dataclass(frozen=True)
class Sections:
    """A volume read like a stack, a slab at a time."""

    volume: Readable

    @property
    def shape(self) -> Zyx:
        """Sections, rows, columns."""
        return self.volume.shape

    @property
    def dtype(self) -> str:
        """The type of a voxel."""
        return self.volume.dtype

    def read(self, first: int, stop: int) -> NDArray[Any]:
        """Sections [first, stop) as (z, y, x)."""
        return self.volume.read(Box((first, 0, 0), (stop, *self.shape[1:])))


def open_readable(location: str, dtypes: tuple[str, ...] = GREY) -> Readable:
    """Open a volume of any kind for reading boxes.

    Image files cannot be read by boxes: a TIFF or a folder is decoded once, into a temporary file.

    Args:
        location: a Zarr (path or URL), FILE.h5:DATASET, a TIFF, or a folder of TIFF or PNG sections.
        dtypes: the types that suit; those of grey values by default.

    Raises:
        SourceError: nothing there, nothing that can be read, another type, or no room to decode it.
    """
    if _is_stack(location):
        stack = open_stack(Path(location), dtypes)
        return UnpackedStack(str(Path(location).resolve()), temporary_array(stack.shape, stack.dtype, _slabs(stack)))
    if is_hdf5(location):
        return open_hdf5(location, dtypes)
    if Path(location).is_file():
        raise SourceError(
            f"{location} is neither a Zarr, an HDF5 file (.h5, .hdf, .hdf5) or a TIFF (.tif, .tiff), nor a folder of "
            "TIFF or PNG sections"
        )
    return open_volume(location, dtypes)


def open_sections(location: str, dtypes: tuple[str, ...] = GREY) -> tuple[Stack, ZyxFloat | None]:
    """Open a volume of any kind for one pass over its sections, and tell its voxel size where it states one.

    Args:
        location: as in `open_readable`; nothing is decoded beforehand.
        dtypes: the types that suit; those of grey values by default.

    Raises:
        SourceError: nothing there, nothing that can be read, or another type.
    """
    if _is_stack(location):
        return open_stack(Path(location), dtypes), None
    volume = open_readable(location, dtypes)
    return Sections(volume), volume.voxel_nm


def _is_stack(location: str) -> bool:
    path = Path(location)
    return "://" not in location and path.exists() and not is_hdf5(location) and is_stack(path)


def _slabs(stack: Stack) -> Iterator[NDArray[Any]]:
    for first in range(0, stack.shape[0], _SLAB):
        yield stack.read(first, min(first + _SLAB, stack.shape[0]))
