"""Tiles of a block: the inputs of the forward passes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from volseg.blocks.box import Box, Zyx, ceil_to, floor_to, to_zyx, zip3
from volseg.errors import GridError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volseg.blocks.footprint import Footprint


@dataclass(frozen=True, slots=True)
class Tiling:
    """Tiles of one fixed shape, with adjacent cores whose origins are multiples of the network's stride.

    All tiles of a run have the same input shape; beyond the edges of the volume the mirror fills them. So one compiled
    network serves all, and the value of a voxel does not depend on the block that computed it.

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
        self.footprint.validate_halo(self.halo)
        if min(self.core) < 1 or any(c % s for c, s in zip3(self.core, self.footprint.stride)):
            raise GridError(f"tile core {self.core} is not a multiple of the network's stride {self.footprint.stride}")

    @property
    def input_shape(self) -> Zyx:
        """Input of one forward pass, in voxels."""
        return self.footprint.input_shape(self.core, self.halo)

    @property
    def overhead(self) -> float:
        """Voxels that the network computes per voxel of the core.

        >>> from volseg.blocks import Footprint
        >>> net = Footprint((0, 245, 245), (0, 245, 245), (1, 16, 16), (0, 0, 0), (1, 16, 16), (0, 235, 235))
        >>> Tiling(net, (1, 1024, 1024), (0, 128, 128)).overhead
        1.5625
        """
        return prod(self.input_shape) / prod(self.core)

    @property
    def crop(self) -> Box:
        """The core within the network's output of one tile."""
        return _box_at(to_zyx(h - m for h, m in zip3(self.halo, self.footprint.margin)), self.core)

    def _union_of_cores(self, write_box: Box) -> Box:
        start = to_zyx(floor_to(a, s) for a, s in zip3(write_box.start, self.footprint.stride))
        stop = to_zyx(a + ceil_to(b - a, c) for a, b, c in zip(start, write_box.stop, self.core, strict=True))
        return Box(start, stop)

    def cores(self, write_box: Box) -> Iterator[Box]:
        """Yield the cores that cover a write box, in order; the last of an axis may extend beyond it."""
        union = self._union_of_cores(write_box)
        axes = (range(a, b, c) for a, b, c in zip(union.start, union.stop, self.core, strict=True))
        for origin in product(*axes):
            yield _box_at(to_zyx(origin), self.core)

    def count(self, write_box: Box) -> int:
        """Return the number of tiles of a write box."""
        return prod(n // c for n, c in zip3(self._union_of_cores(write_box).shape, self.core))

    def input_box(self, core: Box) -> Box:
        """Return the network's input for one core."""
        return _box_at(core.grow(self.halo).start, self.input_shape)

    def read_box(self, write_box: Box) -> Box:
        """Return the union of the inputs of all tiles of a block. It may extend beyond the volume."""
        after = to_zyx(n - h - c for n, h, c in zip(self.input_shape, self.halo, self.core, strict=True))
        return self._union_of_cores(write_box).grow(self.halo, after)


def _box_at(origin: Zyx, shape: Zyx) -> Box:
    return Box(origin, origin).grow((0, 0, 0), shape)


def even_tile_core(block: Zyx, parts: Zyx, stride: Zyx) -> Zyx:
    """Return the tile core that cuts a block into `parts` along each axis, rounded up to the stride.

    >>> even_tile_core((16, 512, 528), (16, 1, 2), (1, 16, 16))
    (1, 512, 272)
    """
    return to_zyx(ceil_to(-(-b // p), s) for b, p, s in zip(block, parts, stride, strict=True))
