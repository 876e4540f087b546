"""Stacks of sections in image files: one TIFF, or a folder of TIFF, PNG or JPEG sections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from volseg.errors import SourceError
from volseg.storage.axes import DEFAULT_OPTIONS, ReadOptions
from volseg.storage.section_folder import TIFF, open_folder
from volseg.storage.tiff import open_tiff
from volseg.storage.zarr_volume import GREY

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Zyx
    from volseg.storage.section_folder import FolderStack
    from volseg.storage.tiff import TiffStack


class Stack(Protocol):
    """Sections that are read a slab at a time, so that a stack may be larger than memory."""

    @property
    def shape(self) -> Zyx:
        """Sections, rows, columns."""
        ...

    @property
    def dtype(self) -> str:
        """Name of the data type, such as `uint8`."""
        ...

    def read(self, first: int, stop: int) -> NDArray[Any]:
        """Read sections [first, stop) as (z, y, x)."""
        ...


def is_stack(path: Path) -> bool:
    """Whether `open_stack` reads a path: a TIFF file, or a folder that is not a Zarr."""
    if path.is_dir():
        return not any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))
    return path.suffix.lower() in TIFF


def open_stack(
    path: Path, dtypes: tuple[str, ...] = GREY, options: ReadOptions = DEFAULT_OPTIONS
) -> TiffStack | FolderStack:
    """Open a stack of sections; only its structure is read.

    Args:
        path: a TIFF file, or a folder of TIFF, PNG or JPEG sections.
        dtypes: supported data types; by default those of grey values, which are read as a viewer shows them. Without
            float32 among them these are labels, whose stored values are read.
        options: axes, channel, and what to read for missing sections.

    Raises:
        SourceError: nothing there, no images, images that are not grey sections, or another data type.
        ConfigError: options that do not fit it.
    """
    if not path.exists():
        raise SourceError(f"source {path} does not exist; check the path, or the mount")
    as_shown = "float32" in dtypes
    if path.is_dir():
        stack: TiffStack | FolderStack = open_folder(path, options, as_shown=as_shown)
    elif path.suffix.lower() in TIFF:
        stack = open_tiff(path, options, as_shown=as_shown)
    else:
        raise SourceError(f"{path} is neither a TIFF (.tif, .tiff) nor a folder of TIFF, PNG or JPEG sections")
    if stack.dtype not in dtypes:
        raise SourceError(f"{path} holds {stack.dtype}; supported types: {', '.join(dtypes)}")
    return stack
