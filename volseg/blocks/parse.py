"""Triples and regions as text, as in the options of the command line."""

from __future__ import annotations

from math import isfinite

from volseg.blocks.box import Box, Zyx, ZyxFloat, to_zyx, zip3
from volseg.errors import ConfigError, GridError

_SMALLEST_NM = 0.1 * (1 - 1e-9)
"""An angstrom, up to rounding: a smaller length is no voxel of a microscope, but a mistaken unit."""


def format_zyx(zyx: Zyx) -> str:
    """Format a triple as `Z,Y,X`: the inverse of `parse_zyx`.

    >>> format_zyx((16, 512, 512))
    '16,512,512'
    """
    return ",".join(map(str, zyx))


def parse_zyx(text: str, name: str) -> Zyx:
    """Parse `Z,Y,X`.

    Args:
        text: the text.
        name: name of the option, for the error message.

    Raises:
        ConfigError: not three whole numbers.

    >>> parse_zyx("16,512,512", "--block")
    (16, 512, 512)
    """
    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"{name} {text!r} is not three whole numbers; write it as Z,Y,X, such as 16,512,512"
        ) from None
    return z, y, x


def parse_roi(text: str, shape: Zyx) -> Box:
    """Parse `z0:z1,y0:y1,x0:x1`; a missing bound is that of the volume.

    Raises:
        ConfigError: not a region.
        GridError: a region that is empty or extends beyond the volume.

    >>> str(parse_roi("24:30,:,0:256", (30, 512, 512)))
    '24:30,0:512,0:256'
    """
    parts = text.split(",")
    try:
        bounds = [part.split(":") for part in parts]
        if len(parts) != 3 or any(len(bound) != 2 for bound in bounds):
            raise ValueError(text)
        start = to_zyx(int(low) if low else 0 for low, _ in bounds)
        stop = to_zyx(int(high) if high else length for (_, high), length in zip(bounds, shape, strict=True))
    except ValueError:
        raise ConfigError(f"--roi {text!r} is not a region; write it as z0:z1,y0:y1,x0:x1, such as 0:16,:,:") from None
    if any(b <= a for a, b in zip3(start, stop)):
        raise GridError(f"--roi {text!r} is empty; each axis needs start < stop")
    region = Box(start, stop)
    if not Box.of_shape(shape).contains(region):
        raise GridError(f"--roi {region} extends beyond the volume of shape {shape}; choose bounds inside it")
    return region


def is_voxel_size(size_nm: ZyxFloat) -> bool:
    """Whether lengths in nanometres can be those of a voxel: finite, and 0.1 nm at least.

    >>> is_voxel_size((50, 4, 4)), is_voxel_size((50, 0, 4)), is_voxel_size((5e-8, 4e-9, 4e-9))
    (True, False, False)
    """
    return all(isfinite(size) and size >= _SMALLEST_NM for size in size_nm)
