"""A map with other voxels than those that the networks see."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import BlockGrid, Box, Zyx, ceil_to, to_zyx
from volseg.ops.resample_sections import ArraySections, resample_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.ops.resampling import Resampling

_TAPS_BEYOND = 2
"""Voxels that a box of the map may be made of beyond its own length in the networks' voxels."""


@dataclass(frozen=True, slots=True)
class OutputResampling:
    """From the voxels that networks see to those of the map; no value depends on the box that it is computed in.

    Attributes:
        resampling: of the voxel sizes, by means.
        shape: of the volume that the networks see.
        map_shape: of the map.
    """

    resampling: Resampling
    shape: Zyx
    map_shape: Zyx

    @property
    def enlargement(self) -> float:
        """Voxels of the map for each voxel that a network sees."""
        return float(1 / prod(self.resampling.ratios))

    def network_box(self, box: Box) -> Box:
        """Voxels that a box of the map is made of."""
        return self.resampling.source_box(self.shape, box)

    def network_grid(self, grid: BlockGrid, stride: Zyx) -> BlockGrid:
        """Blocks of the networks' voxels that are as large as those which any block of the map needs.

        Args:
            grid: the blocks of the map.
            stride: of the networks.
        """
        block = to_zyx(
            ceil_to(min(ceil(b * r) + _TAPS_BEYOND, n) + s - 1, s)
            for b, r, n, s in zip(grid.block, self.resampling.ratios, self.shape, stride, strict=True)
        )
        return BlockGrid(self.shape, block, self.network_box(grid.region))

    def positions(self, axis: int, start: int, stop: int) -> NDArray[np.int64]:
        """Voxels of the map in which the centres of the networks' voxels [start, stop) along an axis lie."""
        step = 1 / Fraction(self.resampling.ratios[axis])
        doubled = 2 * np.arange(start, stop, dtype=np.int64) + 1
        places = doubled * step.numerator // (2 * step.denominator)
        return np.clip(places, 0, self.map_shape[axis] - 1)

    def resample(self, values: NDArray[np.float32], box: Box) -> NDArray[np.float32]:
        """Values of a box of the map.

        Args:
            values: (classes, z, y, x) of its `network_box`.
            box: of the map.
        """
        taps, first = self.resampling.taps(self.shape, box), self.network_box(box).start
        result: NDArray[Any] = np.empty((len(values), *box.shape), np.float32)
        for volume, into in zip(values, result, strict=True):
            resample_means(ArraySections(volume, first[0]), taps, into)
        return result
