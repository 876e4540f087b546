"""The blocks of a volume, by arithmetic: a grid of 10^9 blocks takes no more memory than a grid of one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from volseg.blocks.box import Box, Zyx, ceil_to, floor_to, to_zyx, zip3
from volseg.errors import GridError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_BLOCKS = 1 << 40


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """The write boxes of a run: they tile the region exactly once.

    Block bounds are multiples of the block from the volume's origin, independent of the region: a voxel always has the
    same position in its block. Block numbers run over the blocks that touch the region, x fastest.

      0       block     2*block          shape
      |----------|----------|----------|---.
      |    [=====|==========|====)     |   :    region (whole shards)
      |    [  0  |    1     | 2  )     |   :    write boxes
    """

    shape: Zyx
    block: Zyx
    region: Box

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or min(self.block) < 1:
            raise GridError(f"volume {self.shape} and block {self.block} need at least one voxel along each axis")
        if not Box.of_shape(self.shape).contains(self.region) or not self.region.voxels:
            raise GridError(f"region {self.region} is not inside the volume of shape {self.shape}")
        if self.count > _MAX_BLOCKS:
            raise GridError(
                f"region {self.region} has {self.count} blocks of {self.block}, more than 2^40; name a smaller region, "
                "or larger blocks, and check that the shape is not a mistake"
            )

    @classmethod
    def over(cls, shape: Zyx, block: Zyx, shard: Zyx, region: Box | None = None) -> BlockGrid:
        """Create the grid of a run whose blocks write whole shards; the region grows outward to whole shards.

        Args:
            shape: shape of the volume, in voxels.
            block: size of a write box, in voxels.
            shard: the target's unit of storage, in voxels; it must divide the block.
            region: part of the volume to compute; all of it by default.

        Raises:
            GridError: a block that is not made of whole shards, so that two tasks would share one, or a region beyond
                the volume.

        >>> grid = BlockGrid.over((30, 500, 500), (16, 128, 128), (16, 128, 128))
        >>> grid.count, str(grid.box(grid.count - 1))
        (32, '16:30,384:500,384:500')
        """
        if min(shard) < 1 or any(b % s for b, s in zip3(block, shard)):
            raise GridError(
                f"block {block} is not made of whole shards {shard}; choose a block that is a multiple of the shard "
                "along each axis, or leave --shard out"
            )
        whole = Box.of_shape(shape)
        region = region or whole
        if not whole.contains(region):
            raise GridError(f"region {region} extends beyond the volume of shape {shape}; choose bounds inside it")
        start = to_zyx(floor_to(a, s) for a, s in zip3(region.start, shard))
        stop = to_zyx(min(ceil_to(b, s), n) for b, s, n in zip(region.stop, shard, shape, strict=True))
        return cls(shape, block, Box(start, stop))

    @property
    def offset(self) -> Zyx:
        """Position of block 0 among the blocks of the whole volume."""
        return to_zyx(a // b for a, b in zip3(self.region.start, self.block))

    @property
    def counts(self) -> Zyx:
        """Blocks along each axis."""
        return to_zyx(-(-b // n) - o for b, n, o in zip(self.region.stop, self.block, self.offset, strict=True))

    @property
    def count(self) -> int:
        """Total number of blocks."""
        return prod(self.counts)

    def box(self, number: int) -> Box:
        """Return the write box of a block.

        Raises:
            GridError: no such block.
        """
        if not 0 <= number < self.count:
            raise GridError(f"there is no block {number}; the run has blocks 0 to {self.count - 1}")
        _, ny, nx = self.counts
        position = (number // (ny * nx), number // nx % ny, number % nx)
        start = to_zyx((p + o) * n for p, o, n in zip(position, self.offset, self.block, strict=True))
        return Box(start, start).grow((0, 0, 0), self.block).intersection(self.region)

    @property
    def largest_box(self) -> Box:
        """A write box with the maximum number of voxels."""
        _, ny, nx = self.counts
        # The region cuts only the first and the last block of an axis.
        positions = product(*({0, n // 2, n - 1} for n in self.counts))
        return max((self.box((z * ny + y) * nx + x) for z, y, x in positions), key=lambda box: box.voxels)

    def number(self, voxel: Zyx) -> int:
        """Return the block that writes a voxel: the inverse of `box`.

        Raises:
            GridError: the voxel is outside the region.
        """
        if not self.region.contains(Box(voxel, voxel).grow((0, 0, 0), (1, 1, 1))):
            raise GridError(f"voxel {voxel} is outside the region {self.region}")
        z, y, x = (v // n - o for v, n, o in zip(voxel, self.block, self.offset, strict=True))
        _, ny, nx = self.counts
        return (z * ny + y) * nx + x

    def numbers(self) -> Iterator[int]:
        """Iterate over all block numbers, in order."""
        return iter(range(self.count))
