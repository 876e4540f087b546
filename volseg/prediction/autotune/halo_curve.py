"""The error of every halo from samples of the volume, and the smallest halo within a tolerance.

A sample is a box that the network sees without any halo. A corner of it is computed with the exact halo too. The
difference at a depth of h voxels inside the box is the error that a halo of h leaves in a block: one pair of forward
passes shows the error of all halos at once.

    [ cut off here                                    cut off here ]
      <-- h --> | error of a block with the halo h     | <-- h -->
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
"""Voxels of a sample beyond twice the exact halo, so that its middle shows the error of large halos."""
_STEPS = (0.5497004779, 0.8191725134, 0.6710436067)
"""Steps that spread points evenly over a cube, however many (the R3 sequence: powers of the root of x**4 = x + 1)."""


@dataclass(frozen=True, slots=True)
class HaloError:
    """Measured error of a halo.

    Attributes:
        halo: voxels along z, y, x.
        fraction: of a tile's voxels within one grey level of the exact result, in the worst sample.
        max_error: maximum difference from it, in grey levels.
    """

    halo: Zyx
    fraction: float
    max_error: float


@dataclass(frozen=True)
class DepthErrors:
    """Errors of one sample by the depth of a voxel inside it, in strides: along z, and along y or x.

    Attributes:
        voxels: number at each depth (z, yx).
        within: number of these within one grey level.
        max_error: maximum difference among them, in grey levels.
    """

    voxels: NDArray[np.int64]
    within: NDArray[np.int64]
    max_error: NDArray[np.int64]


def candidate_halos(footprint: Footprint) -> tuple[Zyx, ...]:
    """Halos on the stride, from the smallest to the exact one; y and x grow together."""
    min_, exact, stride = footprint.margin, footprint.exact_halo(), footprint.stride
    steps = [(e - m) // s for e, m, s in zip(exact, min_, stride, strict=True)]
    return tuple(
        (
            min_[0] + kz * stride[0],
            min_[1] + min(k, steps[1]) * stride[1],
            min_[2] + min(k, steps[2]) * stride[2],
        )
        for kz, k in product(range(steps[0] + 1), range(max(steps[1:]) + 1))
    )


def sample_boxes(grid: BlockGrid, footprint: Footprint, count: int = SAMPLES) -> list[Box]:
    """Boxes spread over the region of a run, on the network's stride, the first in its middle; fewer in a small region.

    A box may extend beyond a region that is smaller than twice the halo.
    """
    sides = tuple(_side(axis, footprint, extent) for axis, extent in enumerate(grid.region.shape))
    boxes: list[Box] = []
    for number in range(count):
        positions = [(0.5 + number * step) % 1 for step in _STEPS]
        starts = (
            floor_to(first + round(position * max(extent - side, 0)), stride)
            for first, position, extent, side, stride in zip(
                grid.region.start, positions, grid.region.shape, sides, footprint.stride, strict=True
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
    preferred = ceil_to(2 * cut + _ROOM[axis], stride)
    return min(preferred, max(ceil_to(extent, stride), 2 * cut + stride))


def corner(box: Box, footprint: Footprint) -> Box:
    """The corner of a sample that is compared: deep enough for every halo, at one face of each axis.

    The missing context beyond the opposite faces does not reach it, so it costs half the work.
    """
    cut = (e - m for e, m in zip3(footprint.exact_halo(), footprint.margin))
    z, y, x = (n - c for n, c in zip(box.shape, cut, strict=True))
    start, stop = box.start, box.stop
    return Box((start[0], start[1], stop[2] - x), (start[0] + z, start[1] + y, stop[2]))


def errors_by_depth(cut: NDArray[np.uint8], exact: NDArray[np.uint8], part: Box, footprint: Footprint) -> DepthErrors:
    """Sort the differences of a sample by depth.

    Args:
        cut: prediction of the sample without a halo, (classes, z, y, x).
        exact: prediction of a part of it with the exact halo, likewise.
        part: position of that part in the sample.
        footprint: of the network.
    """
    difference = np.abs(cut[:, *part.slices].astype(np.int16) - exact).max(axis=0)
    sides = zip(cut.shape[1:], footprint.stride, part.slices, strict=True)
    z, y, x = (_depths(length, stride)[part_slice] for length, stride, part_slice in sides)
    across = np.minimum(y[:, None], x[None, :])
    shape = (int(z.max()) + 1, int(across.max()) + 1)
    # If the network does not look along z, all sections have one depth.
    place = (z[:, None, None] * shape[1] + across).ravel()
    voxels = np.bincount(place, minlength=shape[0] * shape[1])
    within = np.bincount(place, weights=(difference <= 1).ravel(), minlength=voxels.size)
    max_error = np.zeros(voxels.size, np.int64)
    np.maximum.at(max_error, place, difference.ravel())
    return DepthErrors(voxels.reshape(shape), within.astype(np.int64).reshape(shape), max_error.reshape(shape))


def _depths(length: int, stride: int) -> NDArray[np.int64]:
    """Distance of each place from the nearer end, in whole strides."""
    places = np.arange(length)
    return np.minimum(places, length - 1 - places) // stride


def halo_errors(samples: Sequence[DepthErrors], footprint: Footprint, core: Zyx) -> tuple[HaloError, ...]:
    """The error of each halo in tiles with this core, in the worst sample.

    The fraction at each depth is weighted by the number of voxels that the tile has there: a small tile is mostly
    border. The exact halo has no error by definition.
    """
    exact = footprint.exact_halo()
    points = []
    for halo in candidate_halos(footprint):
        if halo == exact:
            points.append(HaloError(halo, 1.0, 0.0))
            continue
        fractions, errors = zip(*(_in_tile(sample, footprint, halo, core) for sample in samples), strict=True)
        points.append(HaloError(halo, min(fractions), max(errors)))
    return tuple(points)


def _in_tile(sample: DepthErrors, footprint: Footprint, halo: Zyx, core: Zyx) -> tuple[float, float]:
    """Fraction within one grey level and maximum error of a tile, by one sample."""
    first = [(h - m) // s for h, m, s in zip(halo, footprint.margin, footprint.stride, strict=True)]
    along, across = first[0], max(first[1:])
    weights = np.outer(_rings((core[0],), footprint.stride[:1]), _rings(core[1:], footprint.stride[1:]))
    remaining = (sample.voxels.shape[0] - along, sample.voxels.shape[1] - across)
    deep, wide = (min(n, m) for n, m in zip(weights.shape, remaining, strict=True))
    # Deeper in the tile than in the sample there is no error: the sample's middle has none.
    weighted = weights[:deep, :wide]
    voxels = np.maximum(sample.voxels[along : along + deep, across : across + wide], 1)
    wrong = 1 - sample.within[along : along + deep, across : across + wide] / voxels
    return 1 - float((weighted * wrong).sum() / weights.sum()), float(sample.max_error[along:, across:].max())


def _rings(sides: Sequence[int], strides: Sequence[int]) -> NDArray[np.float64]:
    """Number of voxels of a box at each depth, in strides, outermost first.

    >>> _rings((8, 8), (2, 2)).tolist()
    [48.0, 16.0]
    """
    depth = max(1, min(-(-side // (2 * stride)) for side, stride in zip(sides, strides, strict=True)))
    inside = [
        float(np.prod([max(side - 2 * k * stride, 0) for side, stride in zip(sides, strides, strict=True)]))
        for k in range(depth + 1)
    ]
    return np.array([outer - inner for outer, inner in pairwise(inside)])


def cheapest_halo(points: Sequence[HaloError], tolerance: Tolerance, footprint: Footprint, core: Zyx) -> HaloError:
    """The halo within tolerance with the least work; the exact one always is within."""
    within = [point for point in points if tolerance.holds(point.fraction, point.max_error)]
    return min(within, key=lambda point: (Tiling(footprint, core, point.halo).overhead, point.halo))
