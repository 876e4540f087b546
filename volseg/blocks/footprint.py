"""What a network sees and what sizes it takes, as whole numbers: everything the geometry needs of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from volseg.blocks.box import Zyx, ceil_to, zip3
from volseg.errors import GridError


@dataclass(frozen=True, slots=True)
class Footprint:
    """A network's reach, stride and sizes, along (z, y, x) and in voxels.

    Attributes:
        reach_before: how far before a voxel the network looks for it.
        reach_after: how far behind.
        stride: product of the poolings; origins of blocks, tiles and halos sit on it.
        margin: what the output lacks on each side of the input; 0 for padded networks.
        smallest: the smallest input it takes; all others are whole strides larger.
        context: how far beyond a core that sits on the stride the network looks. It is up to a stride less than the
            reach: a voxel looks furthest from the middle of a pooling cell, which a core never cuts.
        dimensions: 3, or 2 for a network that makes one section at a time (of one section, or of a few as channels).
    """

    reach_before: Zyx
    reach_after: Zyx
    stride: Zyx
    margin: Zyx
    smallest: Zyx
    context: Zyx
    dimensions: Literal[2, 3] = 2

    @property
    def padded(self) -> bool:
        """Whether a section of the output is as large as one of the input."""
        return not any(self.margin[1:])

    def exact_halo(self) -> Zyx:
        """The smallest halo with which blocks leave no seam.

        Along an axis that the network pads, that is its context, rounded up to the stride. Along one that it does not
        pad it is the margin: an output voxel is made from real input voxels only, so more would change nothing.
        """
        z, y, x = (m or ceil_to(c, s) for c, s, m in zip(self.context, self.stride, self.margin, strict=True))
        return z, y, x

    def checked_halo(self, halo: Zyx) -> Zyx:
        """A halo that keeps tile origins on the stride.

        Raises:
            GridError: a halo along an axis that the network does not see, below the margin of an unpadded network, or
                off the stride.
        """
        if self.dimensions == 2 and self.margin[0] and halo[0] != self.margin[0]:
            raise GridError(
                f"halo {halo} does not fit a network that takes {2 * self.margin[0] + 1} sections as its channels; use "
                f"--halo {_text((self.margin[0], *halo[1:]))}"
            )
        unseen = [not (a or b or m) for a, b, m in zip(self.reach_before, self.reach_after, self.margin, strict=True)]
        if any(h and u for h, u in zip(halo, unseen, strict=True)):
            z, y, x = (0 if u else h for h, u in zip(halo, unseen, strict=True))
            raise GridError(
                f"halo {halo} is along an axis that this network does not look along; use --halo {_text((z, y, x))}"
            )
        below = [h for h, m in zip3(halo, self.margin) if h < m]
        if below:
            raise GridError(
                f"halo {halo} is below the margin {self.margin} that this unpadded network loses on each side; "
                f"use --halo exact or at least {_text(self.margin)}"
            )
        if any((h - m) % s for (h, m), s in zip(zip3(halo, self.margin), self.stride, strict=True)):
            z, y, x = (m + ceil_to(h - m, s) for (h, m), s in zip(zip3(halo, self.margin), self.stride, strict=True))
            raise GridError(
                f"halo {halo} is off the network's stride {self.stride}, which would shift its pooling grid; "
                f"use --halo {_text((z, y, x))}"
            )
        return halo

    def sees_beyond(self, halo: Zyx) -> bool:
        """Whether the network looks further than this halo, so that seams are possible."""
        return any(not m and c > h for c, h, m in zip(self.context, halo, self.margin, strict=True))

    def input_shape(self, core: Zyx, halo: Zyx) -> Zyx:
        """The network input that yields `core` voxels with `halo` around them, rounded up to a size it takes.

        >>> unet = Footprint((0, 107, 107), (0, 107, 107), (1, 16, 16), (0, 92, 92), (1, 188, 188), (0, 92, 92))
        >>> unet.input_shape((1, 388, 388), (0, 92, 92))
        (1, 572, 572)
        """
        z, y, x = (
            n + ceil_to(max(c + 2 * h - n, 0), s)
            for c, h, n, s in zip(core, halo, self.smallest, self.stride, strict=True)
        )
        return z, y, x


def _text(zyx: Zyx) -> str:
    return ",".join(map(str, zyx))
