"""Mirroring, as arithmetic: which voxel of the volume stands at a place outside it.

The mirror is that of `numpy.pad(mode="reflect")`: the edge voxel is not repeated, and reflection goes on
where the halo is larger than the axis.

    place   -4 -3 -2 -1 | 0  1  2 | 3  4  5  6
    voxel    0  1  2  1 | 0  1  2 | 1  0  1  2      (an axis of three voxels)
"""

from __future__ import annotations


def mirror_index(place: int, length: int) -> int:
    """The voxel of an axis of `length` that the mirror shows at `place`.

    >>> [mirror_index(p, 3) for p in range(-4, 7)]
    [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    >>> mirror_index(-5, 1)
    0
    """
    if length == 1:
        return 0
    period = 2 * (length - 1)
    folded = place % period
    return min(folded, period - folded)


def mirror_span(start: int, stop: int, length: int) -> tuple[int, int]:
    """The smallest stretch of an axis that holds every voxel the mirror shows in [start, stop).

    >>> mirror_span(-4, 20, 100), mirror_span(90, 130, 100), mirror_span(-1000, 1000, 7)
    ((0, 20), (69, 100), (0, 7))
    """
    if stop <= start:
        return 0, 0
    if stop - start >= 2 * length:
        return 0, length
    shown = [mirror_index(place, length) for place in (start, stop - 1)]
    # Between two ends the folded axis turns only at its own ends: at voxel 0 and at the last voxel.
    if length > 1:
        turn = length - 1
        first_turn = -(-start // turn)
        shown += [mirror_index(k * turn, length) for k in range(first_turn, first_turn + 4) if start <= k * turn < stop]
    return min(shown), max(shown) + 1
