"""Mirrored indices beyond the edges of a volume.

The mirror is that of `numpy.pad(mode="reflect")`: the edge voxel is not repeated, and reflection goes on if the halo is
larger than the axis.

    index   -4 -3 -2 -1 | 0  1  2 | 3  4  5  6
    voxel    0  1  2  1 | 0  1  2 | 1  0  1  2      (an axis of three voxels)
"""

from __future__ import annotations


def mirror_index(index: int, length: int) -> int:
    """Map an index to the voxel of an axis of `length` that the mirror has there.

    >>> [mirror_index(p, 3) for p in range(-4, 7)]
    [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    >>> mirror_index(-5, 1)
    0
    """
    if length == 1:
        return 0
    period = 2 * (length - 1)
    remainder = index % period
    return min(remainder, period - remainder)


def mirror_span(start: int, stop: int, length: int) -> tuple[int, int]:
    """Return the smallest span of an axis that contains all voxels of the mirrored span [start, stop).

    >>> mirror_span(-4, 20, 100), mirror_span(90, 130, 100), mirror_span(-1000, 1000, 7)
    ((0, 20), (69, 100), (0, 7))
    """
    if stop <= start:
        return 0, 0
    if stop - start >= 2 * length:
        return 0, length
    indices = [mirror_index(start, length), mirror_index(stop - 1, length)]
    # Between its two ends the mirrored span turns only at voxel 0 and at the last voxel of the axis.
    if length > 1:
        turn = length - 1
        first_turn = -(-start // turn)
        turns = (k * turn for k in range(first_turn, first_turn + 4))
        indices += [mirror_index(index, length) for index in turns if start <= index < stop]
    return min(indices), max(indices) + 1
