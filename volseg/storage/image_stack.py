"""Stacks of sections in image files: one multi-page TIFF, or a folder of TIFF or PNG sections."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import tifffile
from PIL import Image

from volseg.errors import SourceError
from volseg.storage.place import Place
from volseg.storage.tiff_place import tiff_place
from volseg.storage.zarr_volume import GREY

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Zyx

_TIFF = (".tif", ".tiff")
_IMAGES = (*_TIFF, ".png")


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


@dataclass(frozen=True)
class TiffStack:
    """The pages of a TIFF file."""

    path: Path
    shape: Zyx
    dtype: str
    place: Place

    def read(self, first: int, stop: int) -> NDArray[Any]:
        """Read sections [first, stop) as (z, y, x)."""
        try:
            pages = tifffile.imread(self.path, key=range(first, stop))
        except Exception as error:  # tifffile and its codecs raise errors of many kinds
            raise SourceError(f"cannot read sections {first} to {stop - 1} of {self.path}: {error}") from error
        return np.asarray(pages).reshape(stop - first, *self.shape[1:])


@dataclass(frozen=True)
class FolderStack:
    """Image files of one section each, in natural order: section 9 before section 10."""

    files: tuple[Path, ...]
    shape: Zyx
    dtype: str
    place: Place

    def read(self, first: int, stop: int) -> NDArray[Any]:
        """Read sections [first, stop) as (z, y, x)."""
        return np.stack([self._section(path) for path in self.files[first:stop]])

    def _section(self, path: Path) -> NDArray[Any]:
        section = _read_image(path)
        if section.shape != self.shape[1:] or section.dtype.name != self.dtype:
            raise SourceError(
                f"{path} is {section.shape} {section.dtype.name}, but the first section is {self.shape[1:]} "
                f"{self.dtype}; all sections of a stack must have one shape and type"
            )
        return section


def is_stack(path: Path) -> bool:
    """Whether `open_stack` reads a path: a TIFF file, or a folder that is not a Zarr."""
    if path.is_dir():
        return not any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))
    return path.suffix.lower() in _TIFF


def open_stack(path: Path, dtypes: tuple[str, ...] = GREY) -> Stack:
    """Open a stack of sections; only its shape is read.

    Args:
        path: a TIFF file, or a folder of TIFF or PNG sections.
        dtypes: supported data types; by default those of grey values.

    Raises:
        SourceError: nothing there, no images, images that are not grey sections, or another data type.
    """
    if not path.exists():
        raise SourceError(f"source {path} does not exist; check the path, or the mount")
    stack = _open_folder(path) if path.is_dir() else _open_tiff(path)
    if stack.dtype not in dtypes:
        raise SourceError(f"{path} holds {stack.dtype}; supported types: {', '.join(dtypes)}")
    return stack


def _open_tiff(path: Path) -> TiffStack:
    if path.suffix.lower() not in _TIFF:
        raise SourceError(f"{path} is neither a TIFF (.tif, .tiff) nor a folder of TIFF or PNG sections")
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = len(tiff.pages)
            series = tiff.series[0]
            first = tiff.pages.first
            place = tiff_place(tiff)
            shape, dtype, samples = first.shape, first.dtype, first.samplesperpixel
    except Exception as error:  # tifffile raises errors of many kinds
        raise SourceError(f"{path} cannot be read as a TIFF: {error}") from error
    if samples != 1 or len(shape) != 2 or dtype is None:
        raise SourceError(
            f"{path} has pages of shape {shape}; sections must be grey, with one value per voxel and one page each "
            '(with tifffile, write them with photometric="minisblack")'
        )
    if int(np.prod(series.shape)) != pages * shape[0] * shape[1]:
        raise SourceError(
            f"{path} holds one image of shape {series.shape} in {pages} page(s); write it with one page per section"
        )
    return TiffStack(path, (pages, shape[0], shape[1]), dtype.name, place)


def _open_folder(path: Path) -> FolderStack:
    files = sorted((f for f in path.iterdir() if f.suffix.lower() in _IMAGES), key=_natural)
    if not files:
        raise SourceError(f"{path} holds no .tif, .tiff or .png section")
    first = _read_image(files[0])
    return FolderStack(tuple(files), (len(files), first.shape[0], first.shape[1]), first.dtype.name, Place())


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """Return a sort key that orders digits by value: section 9 before section 10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", path.name) if part]


def _read_image(path: Path) -> NDArray[Any]:
    try:
        if path.suffix.lower() in _TIFF:
            section = np.asarray(tifffile.imread(path))
        else:
            with Image.open(path) as image:
                # Pillow opens 16-bit grey PNGs as 32-bit integers.
                section = np.asarray(image).astype(np.uint16) if image.mode.startswith("I") else np.asarray(image)
    except Exception as error:  # tifffile and Pillow raise errors of many kinds
        raise SourceError(f"cannot read section {path}: {error}") from error
    if section.ndim != 2:
        raise SourceError(f"{path} has shape {section.shape}; sections must be grey, with one value per voxel")
    return section
