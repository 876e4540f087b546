"""Coarser levels of a volume: their shapes and shards, and which blocks each of their shards is made of.

level 0    the blocks of a run, numbered 0, 1, ..
level 1    written with level 0: a shard of it for each shard of level 0
level 2    has blocks of its own, made of level 1, numbered on after those of level 0
level 3    likewise, made of level 2; and so on
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise, product
from math import gcd, lcm, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks.blockset import BlockSet
from volseg.blocks.box import Box, Zyx, ZyxFloat, to_zyx, zip3
from volseg.blocks.grid import BlockGrid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MAX_LEVELS = 24
_SLAB = 1 << 22
"""Blocks that are looked at together."""
_SMALL = 512
"""No level is added below one with so many voxels along each axis: a viewer shows it at once."""


@dataclass(frozen=True, slots=True)
class Level:
    """A coarser level.

    Attributes:
        factor: voxels of the next finer level along z, y, x that one of its voxels is made of, 1 or 2 each.
        scale: likewise of level 0.
        shape: in voxels.
        shard: unit of storage, in voxels.
        chunk: unit of decoding, in voxels.
    """

    factor: Zyx
    scale: Zyx
    shape: Zyx
    shard: Zyx
    chunk: Zyx

    def finer_box(self, box: Box, shape: Zyx) -> Box:
        """Voxels of the next finer level, of a shape, that a box of this level is made of."""
        start = to_zyx(a * f for a, f in zip3(box.start, self.factor))
        return Box(start, to_zyx(min(b * f, n) for b, f, n in zip(box.stop, self.factor, shape, strict=True)))


def level_factors(shape: Zyx, shard: Zyx, voxel_nm: ZyxFloat | None, count: int | None = None) -> tuple[Zyx, ...]:
    """Choose the factors of the coarser levels, each to the next finer one.

    Axes with the smallest voxels are halved first, until voxels are nearly cubic; then all are. Level 1 halves an axis
    only where a shard of level 0 can be halved.

    Args:
        shape: of level 0, in voxels.
        shard: of level 0, in voxels.
        voxel_nm: voxel size of level 0; None if unknown, for cubic ones.
        count: number of coarser levels; by default as many as make the coarsest one at most 512 voxels long. Fewer if
            nothing is left to halve.

    >>> level_factors((30, 4096, 4096), (16, 1024, 1024), (30, 6, 6))
    ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    >>> level_factors((30, 512, 512), (16, 512, 512), (30, 6, 6)), level_factors((1, 1, 1), (1, 1, 1), None, 3)
    ((), ())
    """
    factors: list[Zyx] = []
    size = voxel_nm or (1.0, 1.0, 1.0)
    while len(factors) < (MAX_LEVELS if count is None else min(count, MAX_LEVELS)):
        if count is None and max(shape) <= _SMALL:
            break
        halved = [n > 1 and (bool(factors) or s % 2 == 0) for n, s in zip3(shape, shard)]
        finest = min((nm for nm, is_halved in zip(size, halved, strict=True) if is_halved), default=0.0)
        if not finest:
            break
        factor = to_zyx(2 if h and nm < sqrt(2) * finest else 1 for h, nm in zip(halved, size, strict=True))
        factors.append(factor)
        shape = to_zyx(-(-n // f) for n, f in zip3(shape, factor))
        size = (size[0] * factor[0], size[1] * factor[1], size[2] * factor[2])
    return tuple(factors)


def pyramid_levels(shape: Zyx, shard: Zyx, chunk: Zyx, factors: Iterable[Zyx]) -> tuple[Level, ...]:
    """Lay out the coarser levels of a volume.

    Args:
        shape: of level 0, in voxels.
        shard: of level 0, in voxels; level 1 has as many shards, and the levels below it have shards of this size.
        chunk: of level 0, in voxels.
        factors: of the levels, each to the next finer one.

    >>> [level.shard for level in pyramid_levels((16, 4096, 4096), (16, 1024, 1024), (16, 64, 64), [(1, 2, 2)] * 2)]
    [(16, 512, 512), (16, 1024, 1024)]
    """
    levels: list[Level] = []
    scale = (1, 1, 1)
    for factor in factors:
        scale = to_zyx(a * b for a, b in zip3(scale, factor))
        shape = to_zyx(-(-n // f) for n, f in zip3(shape, factor))
        own = shard if levels else to_zyx(s // f for s, f in zip3(shard, factor))
        levels.append(Level(factor, scale, shape, own, to_zyx(gcd(c, s) for c, s in zip3(chunk, own))))
    return tuple(levels)


@dataclass(frozen=True)
class PyramidGrid:
    """Numbers the blocks of all levels that have blocks of their own: 0, and 2 and coarser.

    A block of a coarser level is made of whole blocks of the next finer grid.

    Attributes:
        base: the blocks of level 0.
        levels: the coarser ones, from level 1 on.
    """

    base: BlockGrid
    levels: tuple[Level, ...] = ()

    @cached_property
    def grids(self) -> tuple[BlockGrid, ...]:
        """Blocks of level 0, then of levels 2, 3, .."""
        grids, region, block = [self.base], self.base.region, self.base.block
        for number, level in enumerate(self.levels, 1):
            region = coarser_box(region, level.factor)
            block = to_zyx(lcm(s, b // gcd(b, f)) for s, b, f in zip(level.shard, block, level.factor, strict=True))
            if number > 1:
                grids.append(BlockGrid.over(level.shape, block, level.shard, region))
                region = grids[-1].region
        return tuple(grids)

    @cached_property
    def _firsts(self) -> tuple[int, ...]:
        return tuple(accumulate((grid.count for grid in self.grids), initial=0))

    @property
    def count(self) -> int:
        """Blocks of all levels."""
        return self._firsts[-1]

    def numbers(self, grid: int) -> range:
        """Numbers of the blocks of a grid of `grids`."""
        return range(self._firsts[grid], self._firsts[grid + 1])

    def grid_of(self, number: int) -> int:
        """Index in `grids` of the grid of a block."""
        return next(at for at, (first, stop) in enumerate(pairwise(self._firsts)) if first <= number < stop)

    def locate(self, number: int) -> tuple[int, Box]:
        """Level of a block, and its box there."""
        at = self.grid_of(number)
        return at + bool(at), self.grids[at].box(number - self._firsts[at])

    def ratio(self, grid: int) -> Zyx:
        """Blocks along z, y, x of a grid of `grids` that a block of the next coarser one is made of."""
        fine, coarse = self.grids[grid], self.grids[grid + 1]
        factors = [level.factor for level in (self.levels[:2] if grid == 0 else self.levels[grid + 1 : grid + 2])]
        block = coarse.block
        for factor in factors:
            block = to_zyx(b * f for b, f in zip3(block, factor))
        return to_zyx(b // n for b, n in zip3(block, fine.block))

    def parent(self, number: int) -> int | None:
        """The block of the next coarser grid that is made of a block, among others; None for those of the last."""
        at = self.grid_of(number)
        return None if at + 1 == len(self.grids) else self.parents(at, number)

    def parents(self, grid: int, numbers: Any) -> Any:
        """The blocks of the next coarser grid that are made of blocks of a grid of `grids`, which is not the last.

        Args:
            grid: index in `grids`.
            numbers: one, or an array of integers.
        """
        first, fine, offset, ratio, origin, coarse, target = self._steps[grid]
        own = numbers - first
        z = (own // (fine[1] * fine[2]) + offset[0]) // ratio[0] - origin[0]
        y = (own // fine[2] % fine[1] + offset[1]) // ratio[1] - origin[1]
        x = (own % fine[2] + offset[2]) // ratio[2] - origin[2]
        return target + (z * coarse[1] + y) * coarse[2] + x

    @cached_property
    def _steps(self) -> tuple[tuple[int, Zyx, Zyx, Zyx, Zyx, Zyx, int], ...]:
        """For each grid but the last what `parents` needs: computed once, because a run asks once a block."""
        return tuple(
            (self._firsts[at], fine.counts, fine.offset, self.ratio(at), coarse.offset, coarse.counts,
             self._firsts[at + 1])
            for at, (fine, coarse) in enumerate(pairwise(self.grids))
        )  # fmt: skip

    def children(self, number: int) -> Iterator[int]:
        """Blocks of the next finer grid that a block is made of; none for those of level 0."""
        at = self.grid_of(number)
        if at == 0:
            return
        fine = self.grids[at - 1]
        axes = zip(
            _position(self.grids[at], number - self._firsts[at]), self.ratio(at - 1), fine.offset, fine.counts,
            strict=True,
        )  # fmt: skip
        spans = [range(max(p * r - o, 0), min((p + 1) * r - o, n)) for p, r, o, n in axes]
        for z, y, x in product(*spans):
            yield self._firsts[at - 1] + (z * fine.counts[1] + y) * fine.counts[2] + x

    def above(self, numbers: Iterable[int]) -> BlockSet:
        """Blocks of coarser levels that are made of some blocks of any level, directly or not."""
        found, finer = BlockSet(), BlockSet()
        finer.update(numbers if isinstance(numbers, BlockSet) else BlockSet(numbers))
        for at in range(len(self.grids) - 1):
            own, coarser = self.numbers(at), self.numbers(at + 1)
            flags = np.zeros(len(coarser), bool)
            for start in range(own.start, own.stop, _SLAB):
                some = np.flatnonzero(finer.to_flags(start, min(start + _SLAB, own.stop)))
                flags[self.parents(at, start + some) - coarser.start] = True
            parents = BlockSet.from_flags(flags, coarser.start)
            finer.update(parents)
            found.update(parents)
        return found


def _position(grid: BlockGrid, number: int) -> Zyx:
    """Position of a block among those of the whole volume."""
    _, ny, nx = grid.counts
    z, y, x = grid.offset
    return number // (ny * nx) + z, number // nx % ny + y, number % nx + x


def coarser_box(box: Box, factor: Zyx) -> Box:
    """Voxels of a coarser level that are made of a box of the next finer one."""
    start = to_zyx(a // f for a, f in zip3(box.start, factor))
    return Box(start, to_zyx(-(-b // f) for b, f in zip3(box.stop, factor)))


def coarser_place(
    voxel_nm: Sequence[float], translation_nm: Sequence[float], scale: Zyx
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Voxel size and translation of a coarser level, whose first voxel lies in the middle of those it is made of.

    >>> coarser_place((30, 6, 6), (0, 0, 0), (1, 2, 4))
    ((30, 12, 24), (0.0, 3.0, 9.0))
    """
    size = tuple(nm * s for nm, s in zip(voxel_nm, scale, strict=True))
    return size, tuple(t + (s - 1) / 2 * nm for t, s, nm in zip(translation_nm, scale, voxel_nm, strict=True))
