"""Sections in PNG, JPEG and BMP files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from volseg.errors import SourceError
from volseg.storage.tiff import grey_palette

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.storage.tiff import Values

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP"}
_ORIENTATION = 274
_PNG_HEADER = 26
_FEW_BITS = (2, 4)


def read_picture(path: Path, values: Values) -> NDArray[Any]:
    """Read a section (y, x).

    Args:
        path: of a PNG, JPEG or BMP file.
        values: what the values are.

    Raises:
        SourceError: it cannot be read, or is not one upright grey picture of the format that its name says.
    """
    try:
        with Image.open(path) as image:
            _refuse_other_content(path, image)
            section = np.asarray(image)
            if image.mode.startswith("I"):  # Pillow opens 16-bit grey PNGs as 32-bit integers
                section = section.astype(np.uint16)
            palette = image.getpalette() if image.mode == "P" else None
    except SourceError:
        raise
    except Exception as error:  # Pillow raises errors of many kinds
        raise SourceError(f"cannot read section {path}: {error}; save it anew") from error
    if section.ndim != 2:
        raise SourceError(f"{path} has shape {section.shape}; sections must be grey, with one value per voxel")
    if palette is not None:
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(palette) // 3] = np.reshape(palette, (-1, 3))
        grey = grey_palette(path, colours, values)
        return section if grey is None else grey[section]
    scale = _png_scale(path) if values == "labels" else 1
    return section if scale == 1 else section // scale


def _refuse_other_content(path: Path, image: Image.Image) -> None:
    expected = _FORMATS[path.suffix.lower()]
    if image.format != expected:
        raise SourceError(f"{path} is {image.format}, not {expected} as its name says; rename it")
    if getattr(image, "n_frames", 1) != 1:
        raise SourceError(f"{path} holds several pictures, in a folder of one section a file; save each as a file")
    if (orientation := image.getexif().get(_ORIENTATION, 1)) not in (0, 1):
        raise SourceError(f"{path} is shown rotated or mirrored (orientation {orientation}); save it upright")


def _png_scale(path: Path) -> int:
    """By what Pillow multiplies the values of a grey PNG of 2 or 4 bits, so that they fill a byte."""
    with path.open("rb") as file:
        header = file.read(_PNG_HEADER)
    is_grey_png = header[:4] == b"\x89PNG" and header[25] == 0
    bits = header[24] if is_grey_png else 0
    return 255 // (2**bits - 1) if bits in _FEW_BITS else 1
