"""Open volumes of any format: Zarr, HDF5, TIFF, folders of sections, and those of plug-ins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from volseg.blocks import Box
from volseg.errors import SourceError
from volseg.ops import read_reflected
from volseg.registry import Registry
from volseg.storage.hdf5 import is_hdf5, open_hdf5
from volseg.storage.image_stack import is_stack, open_stack
from volseg.storage.memmap import MemmapFile, temporary_memmap
from volseg.storage.place import Place, Placed, place_of
from volseg.storage.zarr_volume import GREY, open_volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from volseg.blocks import Zyx, ZyxFloat
    from volseg.storage.image_stack import Stack

_SLAB = 16


class Readable(Protocol):
    """A volume that is read in boxes; it can be pickled, and worker processes open it again."""

    @property
    def location(self) -> str:
        """Path or URL."""
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
        """Voxel size (z, y, x) in nanometres; None if not stated."""
        ...

    @property
    def translation_nm(self) -> ZyxFloat | None:
        """Translation (z, y, x) of the first voxel in nanometres; None if not stated."""
        ...

    @property
    def chunk(self) -> Zyx:
        """Voxels (z, y, x) that are decoded together."""
        ...

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box as (z, y, x), mirrored outside the volume, in the volume's type."""
        ...


class Reader(Protocol):
    """A volume format; the type of plug-ins of the group `volseg.readers`."""

    def accepts(self, location: str) -> bool:
        """Whether a path or URL names a volume of this format; called often, so it only looks at names and files."""
        ...

    def open(self, location: str, dtypes: tuple[str, ...]) -> Readable:
        """Open a volume.

        Args:
            location: a path or URL that `accepts` returned True for.
            dtypes: supported voxel types; a volume of another type is refused by `open_readable`.

        Raises:
            SourceError: it cannot be read.
        """
        ...


@dataclass(frozen=True)
class UnpackedStack(Placed):
    """A stack of sections, decoded into a temporary file that worker processes share."""

    location: str
    place: Place
    _file: MemmapFile

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
    def chunk(self) -> Zyx:
        """A section."""
        return (1, *self.shape[1:])

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box, mirrored outside the volume."""
        return read_reflected(self._file.array, box.start, box.stop)


@dataclass(frozen=True)
class Sections:
    """A volume read as a stack of sections."""

    volume: Readable

    @property
    def shape(self) -> Zyx:
        """Sections, rows, columns."""
        return self.volume.shape

    @property
    def dtype(self) -> str:
        """The type of a voxel."""
        return self.volume.dtype

    @property
    def place(self) -> Place:
        """Voxel size and translation."""
        return place_of(self.volume)

    def read(self, first: int, stop: int) -> NDArray[Any]:
        """Sections [first, stop) as (z, y, x)."""
        return self.volume.read(Box((first, 0, 0), (stop, *self.shape[1:])))


class _StackReader:
    """TIFF files and folders of TIFF or PNG sections."""

    def accepts(self, location: str) -> bool:
        path = Path(location)
        return "://" not in location and path.exists() and not is_hdf5(location) and is_stack(path)

    def open(self, location: str, dtypes: tuple[str, ...]) -> UnpackedStack:
        """Decode all sections into a temporary file, as image files cannot be read in boxes."""
        stack = open_stack(Path(location), dtypes)
        file = temporary_memmap(stack.shape, stack.dtype, _slabs(stack))
        return UnpackedStack(str(Path(location).resolve()), stack.place, file)


class _Hdf5Reader:
    def accepts(self, location: str) -> bool:
        return is_hdf5(location)

    def open(self, location: str, dtypes: tuple[str, ...]) -> Readable:
        return open_hdf5(location, dtypes)


class _ZarrReader:
    def accepts(self, location: str) -> bool:
        """True for folders and URLs: only opening shows whether they are Zarr."""
        return not Path(location).is_file()

    def open(self, location: str, dtypes: tuple[str, ...]) -> Readable:
        return open_volume(location, dtypes)


READERS: Registry[Reader] = Registry(
    "volseg.readers", "reader", {"stack": _StackReader(), "hdf5": _Hdf5Reader(), "zarr": _ZarrReader()}
)
"""Name -> volume format. Plug-ins are asked before built-ins, these in this order."""


def open_readable(location: str, dtypes: tuple[str, ...] = GREY) -> Readable:
    """Open a volume of any format for reading boxes; a stack of images is decoded into a temporary file.

    Args:
        location: a Zarr (path or URL), FILE.h5:DATASET, a TIFF, a folder of TIFF or PNG sections, or a location that
            the reader of a plug-in accepts.
        dtypes: supported voxel types, by default those of grey values.

    Raises:
        SourceError: it does not exist, has no known format or another type, or does not fit on the disk decoded.
        ConfigError: the reader of a plug-in cannot be imported.
    """
    volume = READERS[_reader_name(location)].open(location, dtypes)
    if volume.dtype not in dtypes:
        raise SourceError(f"{location} holds {volume.dtype}; supported types: {', '.join(dtypes)}")
    return volume


def open_sections(location: str, dtypes: tuple[str, ...] = GREY) -> Stack:
    """Open a volume of any format for one pass over its sections.

    Args:
        location: as in `open_readable`; stacks are not decoded beforehand.
        dtypes: supported voxel types, by default those of grey values.

    Raises:
        SourceError: it does not exist, has no known format, or has another type.
        ConfigError: the reader of a plug-in cannot be imported.
    """
    if _reader_name(location) == "stack":
        return open_stack(Path(location), dtypes)
    return Sections(open_readable(location, dtypes))


def _reader_name(location: str) -> str:
    """The name of the reader that accepts a location."""
    plugins = [name for name in READERS if name not in READERS.builtins]
    accepting = [name for name in plugins if READERS[name].accepts(location)]
    if len(accepting) > 1:
        raise SourceError(f"{location} is accepted by the readers {' and '.join(accepting)}; uninstall one of them")
    accepting += [name for name in READERS.builtins if READERS[name].accepts(location)]
    if not accepting:
        raise SourceError(
            f"{location} is neither a Zarr, an HDF5 file (.h5, .hdf, .hdf5) or a TIFF (.tif, .tiff), nor a folder of "
            f"TIFF or PNG sections{', nor accepted by the readers ' * bool(plugins)}{' and '.join(plugins)}"
        )
    return accepting[0]


def _slabs(stack: Stack) -> Iterator[NDArray[Any]]:
    for first in range(0, stack.shape[0], _SLAB):
        yield stack.read(first, min(first + _SLAB, stack.shape[0]))
