"""Stacks of sections in image files: one TIFF, or a folder of TIFF, PNG, JPEG or BMP sections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from volseg.errors import SourceError
from volseg.storage.axes import DEFAULT_OPTIONS, ReadOptions
from volseg.storage.section_folder import TIFF, FolderStack, is_pattern, open_folder
from volseg.storage.tiff import TiffStack, Values, open_tiff
from volseg.storage.zarr_volume import GREY

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Zyx
    from volseg.storage.place import Place
ImageStack: TypeAlias = TiffStack | FolderStack


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

    @property
    def place(self) -> Place:
        """Voxel size and translation."""
        ...

    def read(self, first: int, stop: int) -> NDArray[Any]:
        """Read sections [first, stop) as (z, y, x)."""
        ...


def is_stack(path: Path) -> bool:
    """Whether `open_stack` reads a path: a TIFF file, a pattern of names, or a folder that is not a Zarr."""
    if path.is_dir():
        return not any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))
    return path.suffix.lower() in TIFF or is_pattern(path)


def open_stack(path: Path, dtypes: tuple[str, ...] = GREY, options: ReadOptions = DEFAULT_OPTIONS) -> ImageStack:
    """Open a stack of sections; only its structure is read.

    Args:
        path: a TIFF file, or a folder of TIFF, PNG, JPEG or BMP sections, or a pattern of their names.
        dtypes: supported data types, which tell what the values are (`Values`); by default those of grey values.
        options: axes, channel, and what to read for missing sections.

    Raises:
        SourceError: nothing there, no images, images that are not grey sections, or another data type.
        ConfigError: options that do not fit it.
    """
    has_pattern = is_pattern(path)
    if not (path.exists() or has_pattern):
        raise SourceError(f"source {path} does not exist; check the path, or the mount")
    kinds: dict[tuple[bool, bool], Values] = {(True, False): "grey", (False, True): "labels"}
    values = kinds.get(("float32" in dtypes, "uint64" in dtypes), "either")
    if path.is_dir() or has_pattern:
        stack: ImageStack = open_folder(path, options, values)
    elif path.suffix.lower() in TIFF:
        stack = open_tiff(path, options, values)
    else:
        raise SourceError(f"{path} is neither a TIFF (.tif, .tiff) nor a folder of TIFF, PNG, JPEG or BMP sections")
    if stack.dtype not in dtypes:
        raise SourceError(f"{path} holds {stack.dtype}; supported types: {', '.join(dtypes)}")
    return stack
