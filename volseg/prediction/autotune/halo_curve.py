"""The smallest halo that is good enough, by what it does to samples of the volume: arithmetic and arrays alone.

A sample is a box that the network sees cut off at the box's faces. A corner of it is seen with the exact halo too. What
differs at a depth of h voxels inside the box is what a halo of h would leave in a block: one pair of forward passes
shows the error of every halo at once.

    [ cut off here                                    cut off here ]
      <-- h --> | what a block with the halo h keeps  | <-- h -->
    [     compared along y: from one face ]
                          [ along x: from the other face           ]
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import Box, Footprint, Tiling, Zyx, ceil_to
from volseg.blocks.box import floor_to, zip3

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volseg.blocks import BlockGrid
    from volseg.config.tolerance import Tolerance

SAMPLES = 6
_ROOM = (2, 160, 160)
"""Voxels of a sample beyond twice the exact halo, so that even its middle says something of large halos."""
_STEPS = (0.5497004779, 0.8191725134, 0.6710436067)
"""Steps that spread points evenly over a cube, however many (the R3 sequence: powers of the root of x**4 = x + 1)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a halo was measured to do.

    Attributes:
        halo: voxels along z, y, x.
        share: of a tile's voxels that stay within one grey level of the exact result, in the sample where they are
            fewest.
        greatest: difference from it, in grey levels.
    """

    halo: Zyx
    share: float
    greatest: float


@dataclass(frozen=True)
class Depths:
    """What one sample shows, by how deep inside it a voxel lies, in strides: along z, and along y or x.

    Attributes:
        voxels: how many there are, for each depth (z, yx).
        within: how many of them are within one grey level.
        greatest: difference among them.
    """

    voxels: NDArray[np.int64]
    within: NDArray[np.int64]
    greatest: NDArray[np.int64]


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
    """Boxes spread over the region of a run, on the network's stride, the first in its middle; fewer where it is small.

    One may leave the region where that is smaller than twice the halo.
    """
    sides = tuple(_side(axis, footprint, extent) for axis, extent in enumerate(grid.region.shape))
    boxes: list[Box] = []
    for number in range(count):
        shares = [(0.5 + number * step) % 1 for step in _STEPS]
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


def corner(box: Box, footprint: Footprint) -> Box:
    """The part of a sample that is compared: deep enough for every halo, at one face along z and y, the other along x.

    What is cut off at the faces beyond does not reach it, so it shows one face of each axis, for half the work.
    """
    cut = (e - m for e, m in zip3(footprint.exact_halo(), footprint.margin))
    z, y, x = (n - c for n, c in zip3(box.shape, _triple(tuple(cut))))
    start, stop = box.start, box.stop
    return Box((start[0], start[1], stop[2] - x), (start[0] + z, start[1] + y, stop[2]))


def by_depth(cut: NDArray[np.uint8], exact: NDArray[np.uint8], part: Box, footprint: Footprint) -> Depths:
    """Sort the differences of a sample by depth.

    Args:
        cut: what the network made of the sample alone, (classes, z, y, x).
        exact: what it made of a part with the exact halo around it, likewise.
        part: where that lies in the sample.
        footprint: the network's.
    """
    apart = np.abs(cut[:, *part.slices].astype(np.int16) - exact).max(axis=0)
    sides = zip(cut.shape[1:], footprint.stride, part.slices, strict=True)
    z, y, x = (_depths(length, stride)[seen] for length, stride, seen in sides)
    across = np.minimum(y[:, None], x[None, :])
    shape = (int(z.max()) + 1, int(across.max()) + 1)
    # Where the network does not look along z, all sections are one depth.
    place = (z[:, None, None] * shape[1] + across).ravel()
    voxels = np.bincount(place, minlength=shape[0] * shape[1])
    within = np.bincount(place, weights=(apart <= 1).ravel(), minlength=voxels.size)
    greatest = np.zeros(voxels.size, np.int64)
    np.maximum.at(greatest, place, apart.ravel())
    return Depths(voxels.reshape(shape), within.astype(np.int64).reshape(shape), greatest.reshape(shape))


def _depths(length: int, stride: int) -> NDArray[np.int64]:
    """How many whole strides each place is away from the nearer end."""
    places = np.arange(length)
    return np.minimum(places, length - 1 - places) // stride


def curve(samples: Sequence[Depths], footprint: Footprint, core: Zyx) -> tuple[Measured, ...]:
    """What each halo would leave wrong in tiles of a given core: in the sample where it is worst.

    A small tile is mostly border, a large one mostly inside; so the share at each depth counts as often as the tile
    has voxels there. The exact halo is right by definition.
    """
    exact = footprint.exact_halo()
    points = []
    for halo in candidate_halos(footprint):
        if halo == exact:
            points.append(Measured(halo, 1.0, 0.0))
            continue
        seen = [_in_tile(sample, footprint, halo, core) for sample in samples]
        points.append(Measured(halo, min(share for share, _ in seen), max(most for _, most in seen)))
    return tuple(points)


def _in_tile(sample: Depths, footprint: Footprint, halo: Zyx, core: Zyx) -> tuple[float, float]:
    """Share within one grey level and greatest difference that a sample shows for a tile."""
    first = [(h - m) // s for h, m, s in zip(halo, footprint.margin, footprint.stride, strict=True)]
    along, across = first[0], max(first[1:])
    weights = np.outer(_rings((core[0],), footprint.stride[:1]), _rings(core[1:], footprint.stride[1:]))
    deep, wide = (min(n, m) for n, m in zip(weights.shape, _left(sample, along, across), strict=True))
    # What lies deeper in the tile than the sample shows is right, or the sample's middle would not be.
    kept = weights[:deep, :wide]
    voxels = np.maximum(sample.voxels[along : along + deep, across : across + wide], 1)
    wrong = 1 - sample.within[along : along + deep, across : across + wide] / voxels
    return 1 - float((kept * wrong).sum() / weights.sum()), float(sample.greatest[along:, across:].max())


def _left(sample: Depths, along: int, across: int) -> tuple[int, int]:
    return sample.voxels.shape[0] - along, sample.voxels.shape[1] - across


def _rings(sides: Sequence[int], strides: Sequence[int]) -> NDArray[np.float64]:
    """Voxels of a box at each depth, in strides: its outermost ring first.

    >>> _rings((8, 8), (2, 2)).tolist()
    [48.0, 16.0]
    """
    depth = max(1, min(-(-side // (2 * stride)) for side, stride in zip(sides, strides, strict=True)))
    inside = [
        float(np.prod([max(side - 2 * k * stride, 0) for side, stride in zip(sides, strides, strict=True)]))
        for k in range(depth + 1)
    ]
    return np.array([outer - inner for outer, inner in pairwise(inside)])


def chosen(points: Sequence[Measured], tolerance: Tolerance, footprint: Footprint, core: Zyx) -> Measured:
    """The cheapest halo within tolerance; the exact one, which always is, where no smaller one will do."""
    good = [point for point in points if tolerance.holds(point.share, point.greatest)]
    return min(good, key=lambda point: (Tiling(footprint, core, point.halo).overhead, point.halo))


def _triple(shape: tuple[int, ...]) -> Zyx:
    z, y, x = shape
    return z, y, x
