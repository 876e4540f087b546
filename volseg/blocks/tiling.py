"""How a block is cut into tiles: what one forward pass of the network sees."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from volseg.blocks.box import Box, Zyx, ceil_to, floor_to, zip3
from volseg.errors import GridError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volseg.blocks.footprint import Footprint


@dataclass(frozen=True, slots=True)
class Tiling:
    """Tiles of one fixed shape, cores side by side, origins on the network's stride.

    Every tile of a run has the same input shape: the ones at the volume's edge are filled by the mirror. So one
    compiled network serves all, and a voxel's value does not depend on which block computed it.

         read box
      |<- halo ->|<- core ->|<- core ->|<- halo ->|
      |          [====write box====)   |          |
      |---------- input ----------|    |          |
                 |---------- input ---------------|
    """

    footprint: Footprint
    core: Zyx
    halo: Zyx

    def __post_init__(self) -> None:
        self.footprint.checked_halo(self.halo)
        if min(self.core) < 1 or any(c % s for c, s in zip3(self.core, self.footprint.stride)):
            raise GridError(f"tile core {self.core} is off the network's stride {self.footprint.stride}")

    @property
    def input_shape(self) -> Zyx:
        """What one forward pass sees, in voxels."""
        return self.footprint.input_shape(self.core, self.halo)

    @property
    def overhead(self) -> float:
        """Voxels that the network computes for each that it keeps.

        >>> from volseg.blocks import Footprint
        >>> net = Footprint((0, 245, 245), (0, 245, 245), (1, 16, 16), (0, 0, 0), (1, 16, 16), (0, 235, 235))
        >>> Tiling(net, (1, 1024, 1024), (0, 128, 128)).overhead
        1.5625
        """
        return prod(self.input_shape) / prod(self.core)

    @property
    def crop(self) -> Box:
        """Where the core lies in the network's output of one tile."""
        z, y, x = (h - m for h, m in zip3(self.halo, self.footprint.margin))
        return Box((z, y, x), (z + self.core[0], y + self.core[1], x + self.core[2]))

    def _covered(self, write_box: Box) -> Box:
        start = tuple(floor_to(a, s) for a, s in zip3(write_box.start, self.footprint.stride))
        stop = tuple(a + ceil_to(b - a, c) for a, b, c in zip(start, write_box.stop, self.core, strict=True))
        return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))

    def cores(self, write_box: Box) -> Iterator[Box]:
        """The cores that cover a write box, in order; the last of an axis may overhang it."""
        covered = self._covered(write_box)
        axes = (range(a, b, c) for a, b, c in zip(covered.start, covered.stop, self.core, strict=True))
        for z, y, x in product(*axes):
            yield Box((z, y, x), (z + self.core[0], y + self.core[1], x + self.core[2]))

    def count(self, write_box: Box) -> int:
        """Tiles that a write box takes."""
        return prod(n // c for n, c in zip3(self._covered(write_box).shape, self.core))

    def input_box(self, core: Box) -> Box:
        """What the network reads for one core."""
        before = core.grown(self.halo).start
        shape = self.input_shape
        return Box(before, (before[0] + shape[0], before[1] + shape[1], before[2] + shape[2]))

    def read_box(self, write_box: Box) -> Box:
        """What a block reads: all of its tiles' inputs. It may leave the volume."""
        covered = self._covered(write_box)
        surplus = tuple(n - h - c for n, h, c in zip(self.input_shape, self.halo, self.core, strict=True))
        return covered.grown(self.halo, (surplus[0], surplus[1], surplus[2]))


def split_evenly(block: Zyx, parts: Zyx, stride: Zyx) -> Zyx:
    """The tile core that cuts a block into `parts` along each axis, on the stride.

    >>> split_evenly((16, 512, 528), (16, 1, 2), (1, 16, 16))
    (1, 512, 272)
    """
    z, y, x = (ceil_to(-(-b // p), s) for b, p, s in zip(block, parts, stride, strict=True))
    return z, y, x
