"""The source of a conversion: volumes as they are read in boxes, and stacks without a decoded copy where that suits."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.errors import SourceLostError
from volseg.storage import GREY, LABELS, UnpackedStack, open_readable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx, ZyxFloat
    from volseg.storage import Place, Readable
    from volseg.storage.axes import ReadOptions

TYPES = tuple(dict.fromkeys((*GREY, *LABELS)))
_MAX_SLAB_BYTES = 1 << 28
"""Sections of a stack that a worker decodes at once; of larger ones a copy is unpacked first."""
_SLAB = 16


@dataclass(frozen=True)
class SectionSource:
    """A stack of which each box decodes whole sections.

    Attributes:
        stack: whose sections are read; its decoded copy is not made.
    """

    stack: UnpackedStack

    @property
    def location(self) -> str:
        """Absolute path."""
        return self.stack.location

    @property
    def shape(self) -> Zyx:
        """Sections, rows, columns."""
        return self.stack.shape

    @property
    def dtype(self) -> str:
        """The type of a voxel."""
        return self.stack.dtype

    @property
    def place(self) -> Place:
        """Voxel size and translation."""
        return self.stack.place

    @property
    def voxel_nm(self) -> ZyxFloat | None:
        """Voxel size (z, y, x) in nanometres; None if not known."""
        return self.stack.voxel_nm

    @property
    def translation_nm(self) -> ZyxFloat | None:
        """Translation (z, y, x) of the first voxel in nanometres; None if not known."""
        return self.stack.translation_nm

    @property
    def chunk(self) -> Zyx:
        """A section."""
        return self.stack.chunk

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box inside the stack.

        Raises:
            SourceError: a section cannot be decoded, or differs from the first.
        """
        _, y, x = box.slices
        return self.stack.stack.read(box.start[0], box.stop[0])[:, y, x]

    def confirm(self) -> None:
        """Refuse a stack of which a file is gone or has changed.

        Raises:
            SourceError: one is or has.
        """
        self.stack.confirm()


@dataclass(frozen=True, slots=True)
class SourceRef:
    """A source that worker processes open again.

    Attributes:
        location: as the driver opened it.
        options: what the user states of it.
        shape: voxels along z, y, x.
        dtype: of a voxel.
    """

    location: str
    options: ReadOptions
    shape: Zyx
    dtype: str

    def open(self) -> Readable:
        """Open the source.

        Raises:
            SourceLostError: it is another than the driver opened.
        """
        volume = open_source(self.location, self.options)
        if (volume.shape, volume.dtype) != (self.shape, self.dtype):
            raise SourceLostError(
                f"{self.location} is {volume.shape} {volume.dtype} here, and was {self.shape} {self.dtype} at the "
                "start; use a path that is the same everywhere"
            )
        return volume


def open_source(location: str, options: ReadOptions, level: int | None = None) -> Readable:
    """Open the source of a conversion, of grey values, labels or a mask.

    Raises:
        SourceError: it cannot be read, or has another type.
        ConfigError: options that do not apply to it.
    """
    volume = open_readable(location, TYPES, options, level)
    if isinstance(volume, UnpackedStack) and reads_sections(volume.shape, volume.dtype):
        return SectionSource(volume)
    return volume


def source_notes(volume: Readable) -> tuple[str, ...]:
    """What is assumed of a source, a line each."""
    if isinstance(volume, UnpackedStack):
        return (
            f"the sections of {volume.location} are too large to decode a slab of them at once, so each host decodes "
            "all of them into a temporary file first",
        )
    return ()


def reads_sections(shape: Zyx, dtype: str) -> bool:
    """Whether a slab of whole sections of a stack fits a worker."""
    return _SLAB * prod(shape[1:]) * np.dtype(dtype).itemsize <= _MAX_SLAB_BYTES
