"""Triples and regions as people type them."""

from __future__ import annotations

from volseg.blocks.box import Box, Zyx, zip3
from volseg.errors import ConfigError, GridError


def parse_zyx(text: str, name: str) -> Zyx:
    """Read `Z,Y,X`.

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
    """Read `z0:z1,y0:y1,x0:x1`; a bound left out is the volume's own.

    Raises:
        ConfigError: not a region.
        GridError: a region that leaves the volume, or holds no voxel.

    >>> str(parse_roi("24:30,:,0:256", (30, 512, 512)))
    '24:30,0:512,0:256'
    """
    parts = text.split(",")
    try:
        bounds = [part.split(":") for part in parts]
        if len(parts) != 3 or any(len(bound) != 2 for bound in bounds):
            raise ValueError(text)
        start = tuple(int(low) if low else 0 for low, _ in bounds)
        stop = tuple(int(high) if high else length for (_, high), length in zip(bounds, shape, strict=True))
    except ValueError:
        raise ConfigError(f"--roi {text!r} is not a region; write it as z0:z1,y0:y1,x0:x1, such as 0:16,:,:") from None
    return checked_roi((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]), shape)


def checked_roi(start: Zyx, stop: Zyx, shape: Zyx) -> Box:
    """A region that is sure to lie in the volume.

    Raises:
        GridError: it leaves the volume, or holds no voxel.
    """
    asked = ",".join(f"{a}:{b}" for a, b in zip3(start, stop))
    if any(a < 0 or b > n for (a, b), n in zip(zip3(start, stop), shape, strict=True)):
        raise GridError(f"region {asked} leaves the volume of shape {shape}; choose bounds inside it")
    if any(b <= a for a, b in zip3(start, stop)):
        raise GridError(f"region {asked} holds no voxel; each axis needs start < stop")
    return Box(start, stop)
