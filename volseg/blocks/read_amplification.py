"""What the blocks of a run read of the source, by arithmetic: one axis at a time, never block by block."""

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


def joint_read_box(tilings: Sequence[Tiling], write_box: Box) -> Box:
    """What a block reads: enough for every network of the run. It may leave the volume."""
    first, *others = (tiling.read_box(write_box) for tiling in tilings)
    return reduce(Box.union, others, first)


def boxes_along(grid: BlockGrid, axis: int) -> Iterator[Box]:
    """One write box for each place along an axis; the other two axes stay at their first."""
    step = prod(grid.counts[axis + 1 :])
    for place in range(grid.counts[axis]):
        yield grid.box(place * step)


def read_amplification(grid: BlockGrid, tilings: Sequence[Tiling], chunk: Zyx) -> float:
    """How often a chunk of the source is decoded, over all that the region touches.

    Bytes of the chunks that all blocks decode, each block for itself, through bytes of the chunks that the region
    touches. What a block reads is a box, so the chunks that it decodes are a product of three numbers, and the sum
    over all blocks is a product of three sums. What the mirror shows is read from where it shows it.

    Args:
        grid: the run's blocks.
        tilings: how each network cuts a block into tiles.
        chunk: what is decoded at once, in voxels.

    >>> from volseg.blocks import BlockGrid, Footprint, Tiling
    >>> net = Footprint((0, 9, 9), (0, 9, 9), (1, 4, 4), (0, 0, 0), (1, 4, 4), (0, 8, 8))
    >>> grid = BlockGrid.over((4, 64, 64), (2, 32, 32), (2, 32, 32))
    >>> read_amplification(grid, [Tiling(net, (1, 32, 32), (0, 8, 8))], (4, 16, 16))
    4.5
    """
    decoded = decoded_chunks(grid, tilings, chunk)
    touched = prod(_chunks(a, b, c) for a, b, c in zip(grid.region.start, grid.region.stop, chunk, strict=True))
    return decoded / touched


def decoded_chunks(grid: BlockGrid, tilings: Sequence[Tiling], chunk: Zyx) -> int:
    """How many chunks of the source all blocks decode, each block for itself; arguments as above."""
    return prod(_decoded_along(grid, tilings, chunk[axis], axis) for axis in range(3))


def _decoded_along(grid: BlockGrid, tilings: Sequence[Tiling], chunk: int, axis: int) -> int:
    read = (joint_read_box(tilings, box) for box in boxes_along(grid, axis))
    spans = (mirror_span(box.start[axis], box.stop[axis], grid.shape[axis]) for box in read)
    return sum(_chunks(low, high, chunk) for low, high in spans)


def _chunks(start: int, stop: int, chunk: int) -> int:
    """Chunks that a stretch of an axis touches.

    >>> _chunks(0, 16, 16), _chunks(15, 17, 16)
    (1, 2)
    """
    return (stop - 1) // chunk - start // chunk + 1
