"""Whether a TIFF file is whole, and all its pages are stored alike.

tifffile samples a few pages, and decodes all others with the settings of the first.
"""

from __future__ import annotations

import struct
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from volseg.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path

_SETTINGS = (
    "shape", "dtype", "bitspersample", "sampleformat", "samplesperpixel", "photometric", "compression", "predictor",
    "fillorder",
)  # fmt: skip
_ORIENTATION = 274
_PLAIN = tuple(tifffile.COMPRESSION[name] for name in ("NONE", "ADOBE_DEFLATE", "DEFLATE", "PACKBITS", "LZMA"))
"""Compressions that tifffile reads by itself."""


def refuse_damaged_pages(tiff: tifffile.TiffFile, path: Path) -> None:
    """Look at the tags of every page; no voxel is read.

    Raises:
        SourceError: the file ends before its voxels or its pages do, or a page is stored unlike the first.
    """
    size, pages = tiff.filehandle.size, tiff.pages
    first = pages.first
    for number in range(len(pages)):
        page = _own_page(tiff, number)
        segments = zip(page.dataoffsets, page.databytecounts, strict=True)
        if any(offset + count > size for offset, count in segments):
            raise SourceError(f"{path} is cut short: it ends before the voxels of page {number} do; copy it again")
        for setting in _SETTINGS:
            own, expected = getattr(page, setting), getattr(first, setting)
            if own != expected:
                raise SourceError(
                    f"{path} has {setting} {_text(own)} in page {number}, but {_text(expected)} in page 0; save it "
                    "again, with all pages alike"
                )
        if page.colormap is not None and (first.colormap is None or not np.array_equal(page.colormap, first.colormap)):
            raise SourceError(f"{path} has another palette in page {number} than in page 0; save it as grey")
        _refuse_rotated(page, path, number)
    _refuse_cut_chain(tiff, path)


def refuse_missing_codec(page: tifffile.TiffPage | tifffile.TiffFrame, path: Path) -> None:
    """Refuse a compression that needs imagecodecs, where that is not installed.

    Raises:
        SourceError: says how to install it.
    """
    if page.compression in _PLAIN:
        return
    try:
        import_module("imagecodecs")
    except ImportError as error:
        name = getattr(page.compression, "name", str(page.compression))
        raise SourceError(
            f"{path} is compressed as {name}, which is read with imagecodecs, which is not installed here; install it "
            "with: pip install 'volseg[convert]'"
        ) from error


def _own_page(tiff: tifffile.TiffFile, number: int) -> Any:
    """A page with its own tags."""
    page = tiff.pages[number]
    if isinstance(page, tifffile.TiffPage):
        return page
    tiff.filehandle.seek(page.offset)
    return tifffile.TiffPage(tiff, index=number)


def _refuse_rotated(page: Any, path: Path, number: int) -> None:
    orientation = page.tags.get(_ORIENTATION)
    if orientation is not None and orientation.value not in (0, 1):
        raise SourceError(
            f"{path} is shown rotated or mirrored (orientation {int(orientation.value)} in page {number}); save it "
            "upright"
        )


def _refuse_cut_chain(tiff: tifffile.TiffFile, path: Path) -> None:
    """Refuse a file whose last page names a next one, or ends before it could."""
    layout, file = tiff.tiff, tiff.filehandle
    file.seek(tiff.pages[-1].offset)
    (tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    end = tiff.pages[-1].offset + layout.tagnosize + tags * layout.tagsize
    file.seek(end)
    following = file.read(layout.offsetsize)
    if len(following) < layout.offsetsize or struct.unpack(layout.offsetformat, following)[0] != 0:
        raise SourceError(f"{path} is cut short: page {len(tiff.pages)} is missing; copy it again")


def _text(setting: Any) -> str:
    return getattr(setting, "name", str(setting))
