"""Stacks of sections that are read in boxes, from a decoded copy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.errors import SourceError
from volseg.ops import read_reflected
from volseg.storage.image_stack import open_stack
from volseg.storage.memmap import shared_memmap
from volseg.storage.place import Placed
from volseg.storage.watch import FileWatch
from volseg.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx
    from volseg.storage.axes import ReadOptions
    from volseg.storage.image_stack import ImageStack, Stack
    from volseg.storage.memmap import MemmapFile
    from volseg.storage.place import Place

_SLAB = 16


@dataclass(frozen=True)
class UnpackedStack(Placed):
    """A stack of sections; the first read decodes it into a temporary file that the processes of a host share.

    Attributes:
        location: absolute path.
        place: voxel size and translation.
        stack: its sections.
        dtypes: with which it was opened.
        options: what the user states of it.
    """

    location: str
    place: Place
    stack: ImageStack
    dtypes: tuple[str, ...]
    options: ReadOptions

    @property
    def shape(self) -> Zyx:
        """Sections, rows, columns."""
        return self.stack.shape

    @property
    def dtype(self) -> str:
        """The type of a voxel."""
        return self.stack.dtype

    @property
    def chunk(self) -> Zyx:
        """A section."""
        return (1, *self.shape[1:])

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box, mirrored outside the volume.

        Raises:
            SourceError: at the first read, the stack cannot be decoded, or does not fit on the disk.
        """
        return read_reflected(self._file.array, box.start, box.stop)

    @cached_property
    def _file(self) -> MemmapFile:
        meaning = (self.dtypes, self.options, self.shape, self.dtype)
        key = f"{__version__} {self.location} {self._watch.states} {meaning}"
        return shared_memmap(key, self.shape, self.dtype, self._decoded)

    def _decoded(self) -> Iterator[NDArray[Any]]:
        """Decode all sections; at the end the files must be those of the beginning."""
        yield from _slabs(self.stack)
        self._watch.confirm(at_once=True)

    @cached_property
    def _watch(self) -> FileWatch:
        try:
            return FileWatch(self.stack.files, self.location)
        except OSError as error:
            raise SourceError(f"cannot read {error.filename}: {error.strerror}; restore it, or its link") from error

    def confirm(self) -> None:
        """Refuse a stack of which a file is gone or has changed since the first read.

        Raises:
            SourceError: one is or has.
        """
        self._watch.confirm()

    def __reduce__(self) -> tuple[Any, tuple[str, tuple[str, ...], ReadOptions]]:
        return open_unpacked, (self.location, self.dtypes, self.options)


def open_unpacked(location: str, dtypes: tuple[str, ...], options: ReadOptions) -> UnpackedStack:
    """Open a stack of sections for reading boxes, as `open_stack` opens it for one pass."""
    path = Path(location).absolute()
    stack = open_stack(path, dtypes, options)
    return UnpackedStack(str(path), stack.place, stack, dtypes, options)


def _slabs(stack: Stack) -> Iterator[NDArray[Any]]:
    for first in range(0, stack.shape[0], _SLAB):
        yield stack.read(first, min(first + _SLAB, stack.shape[0]))
