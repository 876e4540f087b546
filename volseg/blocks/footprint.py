"""What a network sees and what sizes it takes, as whole numbers: everything the geometry needs of it."""

from __future__ import annotations

from dataclasses import dataclass

from volseg.blocks.align import ceil_to
from volseg.blocks.box import Zyx, zip3
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
    """

    reach_before: Zyx
    reach_after: Zyx
    stride: Zyx
    margin: Zyx
    smallest: Zyx
    context: Zyx

    @property
    def padded(self) -> bool:
        """Whether the output is as large as the input."""
        return not any(self.margin)

    def exact_halo(self) -> Zyx:
        """The smallest halo with which blocks leave no seam.

        Padded networks take their context, rounded up to the stride. Unpadded ones take their margin: they make an
        output voxel from real input voxels only, so more would change nothing.
        """
        if not self.padded:
            return self.margin
        z, y, x = (ceil_to(c, s) for c, s in zip3(self.context, self.stride))
        return z, y, x

    def checked_halo(self, halo: Zyx) -> Zyx:
        """A halo that keeps tile origins on the stride.

        Raises:
            GridError: a halo along an axis that the network does not see, below the margin of an unpadded network, or
                off the stride.
        """
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
        return self.padded and any(c > h for c, h in zip3(self.context, halo))

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
