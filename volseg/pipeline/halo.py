"""The smallest halo that is good enough, by what it does to samples of the volume: arithmetic and arrays alone.

A sample is a box that the network sees in two ways: cut off at the box's faces, and with the exact halo around it.
What differs at a depth of h voxels inside the box is what a halo of h would leave in a block: one pair of forward
passes shows the error of every halo at once.

    [ cut off here                                   cut off here ]
      <-- h --> | what a block with the halo h keeps | <-- h -->
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import Box, Footprint, Tiling, Zyx, ceil_to
from volseg.blocks.align import floor_to
from volseg.blocks.box import zip3
from volseg.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volseg.blocks import BlockGrid

SAMPLES = 6
_ROOM = (4, 160, 160)
"""Voxels of a sample beyond twice the exact halo, so that even its middle says something of large halos."""
_PLASTIC = (0.8191725134, 0.6710436067)
"""Steps that spread points evenly over a square (the R2 sequence, from powers of the plastic number)."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far blocks may differ from the exact result.

    Attributes:
        share: of voxels that must stay within one grey level.
        greatest: difference that any voxel may have, in grey levels.
    """

    share: float = 0.999
    greatest: float = 8

    def __post_init__(self) -> None:
        if not (0 < self.share <= 1 and 0 <= self.greatest <= 255):
            raise ConfigError(
                f"halo tolerance {self.share:%},{self.greatest:g} makes no sense; give a share of voxels above 0 % and "
                "up to 100 %, and a difference of 0 to 255 grey levels, such as 99.9,8"
            )

    def __str__(self) -> str:
        return f"{self.share:.4%} of voxels within one grey level and none off by more than {self.greatest:g}"

    def holds(self, point: Measured) -> bool:
        """Whether a halo is good enough."""
        return point.share >= self.share and point.greatest <= self.greatest


@dataclass(frozen=True, slots=True)
class Measured:
    """What a halo was measured to do.

    Attributes:
        halo: voxels along z, y, x.
        share: of voxels that stay within one grey level of the exact result, in the sample where they are fewest.
        greatest: difference from it, in grey levels.
    """

    halo: Zyx
    share: float
    greatest: float


@dataclass(frozen=True)
class Tally:
    """What was found for each candidate halo: the share of voxels within one grey level, the greatest difference."""

    share: NDArray[np.float64]
    greatest: NDArray[np.int64]

    def worst_of(self, other: Tally) -> Tally:
        """The worse of two samples, halo by halo: a volume has sections that are harder than their mean."""
        return Tally(np.minimum(self.share, other.share), np.maximum(self.greatest, other.greatest))


def candidate_halos(footprint: Footprint) -> tuple[Zyx, ...]:
    """Halos on the stride, from the smallest to the exact one; y and x grow together. One alone leaves no choice."""
    least, exact, stride = footprint.margin, footprint.exact_halo(), footprint.stride
    steps = [(e - m) // s for e, m, s in zip(exact, least, stride, strict=True)]
    return tuple(
        (
            least[0] + kz * stride[0],
            least[1] + min(k, steps[1]) * stride[1],
            least[2] + min(k, steps[2]) * stride[2],
        )
        for kz, k in product(range(steps[0] + 1), range(max(steps[1:]) + 1))
    )


def sample_boxes(grid: BlockGrid, footprint: Footprint, count: int = SAMPLES) -> list[Box]:
    """Boxes spread over the region of a run, on the network's stride; fewer where the region holds fewer.

    One may leave the region where that is smaller than twice the halo.
    """
    sides = tuple(_side(axis, footprint, extent) for axis, extent in enumerate(grid.region.shape))
    boxes: list[Box] = []
    for number in range(count):
        shares = ((number + 0.5) / count, *((number + 1) * step % 1 for step in _PLASTIC))
        starts = (
            floor_to(first + round(share * max(extent - side, 0)), stride)
            for first, share, extent, side, stride in zip(
                grid.region.start, shares, grid.region.shape, sides, footprint.stride, strict=True
            )
        )
        z, y, x = starts
        box = Box((z, y, x), (z + sides[0], y + sides[1], x + sides[2]))
        if box not in boxes:
            boxes.append(box)
    return boxes


def _side(axis: int, footprint: Footprint, extent: int) -> int:
    stride, cut = footprint.stride[axis], footprint.exact_halo()[axis] - footprint.margin[axis]
    if not cut:
        return stride
    wanted = ceil_to(2 * cut + _ROOM[axis], stride)
    return min(wanted, max(ceil_to(extent, stride), 2 * cut + stride))


def tally(cut: NDArray[np.uint8], exact: NDArray[np.uint8], footprint: Footprint) -> Tally:
    """Count what each candidate halo would leave wrong.

    Args:
        cut: what the network made of the sample alone, (classes, z, y, x).
        exact: what it made with the exact halo around it, alike.
        footprint: the network's.
    """
    apart = np.abs(cut.astype(np.int16) - exact).max(axis=0)
    counts = []
    for halo in candidate_halos(footprint):
        z, y, x = (h - m for h, m in zip3(halo, footprint.margin))
        kept = apart[z : len(apart) - z, y : apart.shape[1] - y, x : apart.shape[2] - x]
        counts.append((float((kept <= 1).mean()), int(kept.max())))
    share, greatest = zip(*counts, strict=True)
    return Tally(np.array(share), np.array(greatest))


def curve(counted: Tally, footprint: Footprint) -> tuple[Measured, ...]:
    """What was measured, halo by halo; the exact one is right by definition."""
    exact = footprint.exact_halo()
    points = zip(candidate_halos(footprint), counted.share, counted.greatest, strict=True)
    return tuple(
        Measured(halo, 1.0, 0.0) if halo == exact else Measured(halo, float(share), float(most))
        for halo, share, most in points
    )


def chosen(points: Sequence[Measured], tolerance: Tolerance, footprint: Footprint, block: Zyx) -> Measured:
    """The cheapest halo within tolerance; the exact one, which always is, where no smaller one will do."""
    good = [point for point in points if tolerance.holds(point)]
    return min(good, key=lambda point: (overhead(footprint, point.halo, block), point.halo))


def overhead(footprint: Footprint, halo: Zyx, block: Zyx) -> float:
    """Voxels that the network computes for each that is written, where a tile is as large as a block.

    >>> net = Footprint((0, 245, 245), (0, 245, 245), (1, 16, 16), (0, 0, 0), (1, 16, 16), (0, 235, 235))
    >>> overhead(net, (0, 128, 128), (16, 1024, 1024))
    1.5625
    """
    z, y, x = (ceil_to(b, s) for b, s in zip3(block, footprint.stride))
    tiling = Tiling(footprint, (1 if footprint.dimensions == 2 else z, y, x), halo)
    return Box.of_shape(tiling.input_shape).voxels / Box.of_shape(tiling.core).voxels
