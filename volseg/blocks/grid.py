"""A volume cut into blocks, by arithmetic: a grid of 10^9 blocks costs what a grid of one does."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from volseg.blocks.box import Box, Zyx, ceil_to, floor_to, zip3
from volseg.errors import GridError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """The write boxes of a run: they tile the region exactly once.

    Blocks are counted from the volume's origin, whatever the region, so that the same voxel always falls at the
    same place of the same block. Block numbers run over the blocks that touch the region, x fastest.

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

    @classmethod
    def over(cls, shape: Zyx, block: Zyx, shard: Zyx, region: Box | None = None) -> BlockGrid:
        """The grid of a run whose blocks write whole shards; the region grows outward to whole shards.

        Args:
            shape: the volume, in voxels.
            block: what one task writes, in voxels.
            shard: the target's unit of storage, in voxels; it must divide the block.
            region: what to do of the volume; all of it by default.

        Raises:
            GridError: a block that is not made of whole shards, which two tasks would then share.

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
        asked = whole if region is None else region
        if not whole.contains(asked):
            raise GridError(f"region {asked} leaves the volume of shape {shape}; choose bounds inside it")
        start = tuple(floor_to(a, s) for a, s in zip3(asked.start, shard))
        stop = tuple(min(ceil_to(b, s), n) for (b, s), n in zip(zip3(asked.stop, shard), shape, strict=True))
        return cls(shape, block, Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])))

    @property
    def first(self) -> Zyx:
        """The place of block number 0 among the volume's blocks."""
        z, y, x = (a // b for a, b in zip3(self.region.start, self.block))
        return z, y, x

    @property
    def counts(self) -> Zyx:
        """Blocks along each axis."""
        z, y, x = (
            -(-stop // b) - first
            for (stop, b), first in zip(zip3(self.region.stop, self.block), self.first, strict=True)
        )
        return z, y, x

    @property
    def count(self) -> int:
        """Blocks in all."""
        return prod(self.counts)

    def box(self, number: int) -> Box:
        """The write box of a block.

        Raises:
            GridError: no such block.
        """
        if not 0 <= number < self.count:
            raise GridError(f"there is no block {number}; the run has blocks 0 to {self.count - 1}")
        _, ny, nx = self.counts
        place = (number // (ny * nx), number // nx % ny, number % nx)
        start = tuple((p + f) * b for (p, f), b in zip(zip3(place, self.first), self.block, strict=True))
        stop = tuple(a + b for a, b in zip(start, self.block, strict=True))
        return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])).intersection(self.region)

    @property
    def largest(self) -> Box:
        """A write box with the most voxels: the region cuts the first and the last of an axis, none between."""
        _, ny, nx = self.counts
        places = product(*({0, n // 2, n - 1} for n in self.counts))
        return max((self.box((z * ny + y) * nx + x) for z, y, x in places), key=lambda box: box.voxels)

    def number(self, voxel: Zyx) -> int:
        """The block that writes a voxel: the inverse of `box`.

        Raises:
            GridError: the voxel is outside the region.
        """
        if not self.region.contains(Box(voxel, (voxel[0] + 1, voxel[1] + 1, voxel[2] + 1))):
            raise GridError(f"voxel {voxel} is outside the region {self.region}")
        z, y, x = (v // b - f for (v, b), f in zip(zip3(voxel, self.block), self.first, strict=True))
        _, ny, nx = self.counts
        return (z * ny + y) * nx + x

    def numbers(self) -> Iterator[int]:
        """Every block number, in order."""
        return iter(range(self.count))
