"""The blocks of a conversion: whole units of the target, with whole chunks of the source where they fit a worker."""

from __future__ import annotations

from math import lcm, prod
from typing import TYPE_CHECKING

from volseg.blocks import ceil_to

if TYPE_CHECKING:
    from volseg.blocks import Zyx

_MAX_BYTES, _LEAST_BYTES, _ROW = 1 << 28, 1 << 24, 1024
"""Of the voxels of a block: at most, unless a unit has more; so many that a task is worth its cost; and along a row."""


def block_shape(unit: Zyx, shape: Zyx, source_chunk: Zyx, item: int, *, sections: bool = False) -> Zyx:
    """Return the voxels that one task copies.

    Args:
        unit: what is written at once; a block consists of whole units.
        shape: of the volume.
        source_chunk: what is decoded at once; a stack's is a section.
        item: bytes of a voxel.
        sections: whole sections are decoded, so that a block has no part of one.

    >>> block_shape((16, 128, 128), (100, 2000, 2000), (32, 64, 64), 1)
    (32, 512, 1024)
    >>> block_shape((32, 1024, 1024), (100, 2000, 2000), (1, 2000, 2000), 1, sections=True)
    (32, 2048, 2048)
    >>> block_shape((1, 300, 400), (100, 300, 400), (16, 64, 64), 1)
    (100, 300, 400)
    """
    ends = [ceil_to(n, u) for n, u in zip(shape, unit, strict=True)]
    block = [min(u, end) for u, end in zip(unit, ends, strict=True)]
    if sections:
        block[1:] = ends[1:]
    # Whole chunks of the source: each is decoded once.
    for axis in (2, 1, 0):
        _grow(block, axis, min(lcm(unit[axis], source_chunk[axis]), ends[axis]), item)
        _grow(block, axis, min(ceil_to(source_chunk[axis], unit[axis]), ends[axis]), item)
    for axis, most in ((2, _ROW), (1, _ROW), (0, ends[0])):
        while prod(block) * item < _LEAST_BYTES and block[axis] < min(ends[axis], most):
            block[axis] = min(2 * block[axis], ends[axis])
    return block[0], block[1], block[2]


def _grow(block: list[int], axis: int, size: int, item: int) -> None:
    """Lengthen a block along an axis if that keeps below the maximum."""
    if size > block[axis] and prod(block) // block[axis] * size * item <= _MAX_BYTES:
        block[axis] = size
