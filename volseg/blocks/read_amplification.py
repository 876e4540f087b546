"""Chunks of the source that the blocks of a run decode, computed per axis rather than per block."""

from __future__ import annotations

from functools import reduce
from math import prod
from typing import TYPE_CHECKING

from volseg.blocks.box import Box, Zyx
from volseg.blocks.mirror import mirror_span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from volseg.blocks.grid import BlockGrid
    from volseg.blocks.tiling import Tiling


def union_read_box(tilings: Sequence[Tiling], write_box: Box) -> Box:
    """Return the read box of a block for all networks of a run. It may extend beyond the volume."""
    first, *others = (tiling.read_box(write_box) for tiling in tilings)
    return reduce(Box.union, others, first)


def boxes_along(grid: BlockGrid, axis: int) -> Iterator[Box]:
    """Yield the write boxes along an axis; the other two axes stay at their first block."""
    step = prod(grid.counts[axis + 1 :])
    for i in range(grid.counts[axis]):
        yield grid.box(i * step)


def read_amplification(grid: BlockGrid, tilings: Sequence[Tiling], chunk: Zyx) -> float:
    """Return how often a chunk of the source is decoded on average.

    The number of chunks that all blocks decode, each block separately, divided by the number of chunks that the region
    touches. A block reads a box, so its number of chunks is a product of three numbers, and the sum over all blocks is
    a product of three sums. Mirrored voxels count as the voxels they repeat.

    Args:
        grid: the run's blocks.
        tilings: how each network cuts a block into tiles.
        chunk: the source's unit of decoding, in voxels.

    >>> from volseg.blocks import BlockGrid, Footprint, Tiling
    >>> net = Footprint((0, 9, 9), (0, 9, 9), (1, 4, 4), (0, 0, 0), (1, 4, 4), (0, 8, 8))
    >>> grid = BlockGrid.over((4, 64, 64), (2, 32, 32), (2, 32, 32))
    >>> read_amplification(grid, [Tiling(net, (1, 32, 32), (0, 8, 8))], (4, 16, 16))
    4.5
    """
    decoded = count_chunk_decodes(grid, tilings, chunk)
    touched = prod(_chunks(a, b, c) for a, b, c in zip(grid.region.start, grid.region.stop, chunk, strict=True))
    return decoded / touched


def count_chunk_decodes(grid: BlockGrid, tilings: Sequence[Tiling], chunk: Zyx) -> int:
    """Return the number of chunks that all blocks decode, each separately; arguments as for `read_amplification`."""
    return prod(_decoded_along(grid, tilings, chunk[axis], axis) for axis in range(3))


def _decoded_along(grid: BlockGrid, tilings: Sequence[Tiling], chunk: int, axis: int) -> int:
    """Chunks that the blocks along an axis decode; those whose read boxes are inside the volume by arithmetic."""
    count, block, length = grid.counts[axis], grid.block[axis], grid.shape[axis]
    step = prod(grid.counts[axis + 1 :])

    def span(i: int) -> tuple[int, int]:
        box = union_read_box(tilings, grid.box(i * step))
        return box.start[axis], box.stop[axis]

    # Blocks are whole multiples of the stride, so all but the first and the last read equally far around themselves.
    start, stop = (bound - count // 2 * block for bound in span(count // 2))
    first = max(1, -(start // block))
    last = max(first, min(count - 1, (length - stop) // block + 1))
    edges = (mirror_span(*span(i), length) for i in (*range(min(first, count)), *range(last, count)))
    inside = last - first
    return (
        sum(_chunks(low, high, chunk) for low, high in edges)
        + inside
        + _sum_of_floors(inside, first * block + stop - 1, block, chunk)
        - _sum_of_floors(inside, first * block + start, block, chunk)
    )


def _sum_of_floors(count: int, first: int, step: int, divisor: int) -> int:
    """Return the sum of (first + i * step) // divisor over i in 0..count - 1, as Euclid's algorithm does.

    >>> _sum_of_floors(4, 5, 7, 3) == 5 // 3 + 12 // 3 + 19 // 3 + 26 // 3
    True
    """
    total = 0
    while count > 0:
        total += count * (first // divisor) + count * (count - 1) // 2 * (step // divisor)
        first, step = first % divisor, step % divisor
        end = first + step * count
        count, first, step, divisor = end // divisor, end % divisor, divisor, step
    return total


def _chunks(start: int, stop: int, chunk: int) -> int:
    """Return the number of chunks that a span of an axis touches.

    >>> _chunks(0, 16, 16), _chunks(15, 17, 16)
    (1, 2)
    """
    return (stop - 1) // chunk - start // chunk + 1
