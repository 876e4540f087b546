"""The geometry of a network: its reach, stride and input sizes."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING, Literal

from volseg.blocks.box import Zyx, ceil_to, to_zyx, zip3
from volseg.blocks.parse import format_zyx
from volseg.errors import GridError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Footprint:
    """Reach, stride and input sizes of a network along (z, y, x), in voxels.

    Attributes:
        reach_before: receptive-field radius before a voxel.
        reach_after: receptive-field radius after a voxel.
        stride: product of the poolings; origins of blocks, tiles and halos are multiples of it.
        margin: voxels by which the output is smaller than the input on each side; 0 for padded networks.
        smallest: the smallest valid input; all others are larger by a multiple of the stride.
        context: receptive-field radius around a core whose bounds are multiples of the stride. It is up to a stride
            less than the reach: a voxel looks furthest from the middle of a pooling cell, and a core never cuts a cell.
        dimensions: 3, or 2 for a network that predicts one section at a time (from one section, or a few as channels).
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
        """Whether a section of the output has the size of a section of the input."""
        return not any(self.margin[1:])

    def exact_halo(self) -> Zyx:
        """Return the smallest halo with which blocks have no seams.

        Along an axis that the network pads, that is its context, rounded up to the stride. Along an unpadded axis it is
        the margin: an output voxel depends on real input voxels only, so a larger halo would change nothing.
        """
        return to_zyx(m or ceil_to(c, s) for c, s, m in zip(self.context, self.stride, self.margin, strict=True))

    def validate_halo(self, halo: Zyx) -> Zyx:
        """Return the halo if this network can use it.

        Raises:
            GridError: a halo along an axis outside the receptive field, below the margin of an unpadded network, or
                not a multiple of the stride.
        """
        if self.dimensions == 2 and self.margin[0] and halo[0] != self.margin[0]:
            raise GridError(
                f"halo {halo} does not fit a network that takes {2 * self.margin[0] + 1} sections as its channels; use "
                f"--halo {format_zyx((self.margin[0], *halo[1:]))}"
            )
        ignored = [not (a or b or m) for a, b, m in zip(self.reach_before, self.reach_after, self.margin, strict=True)]
        if any(h and i for h, i in zip(halo, ignored, strict=True)):
            valid = to_zyx(0 if i else h for h, i in zip(halo, ignored, strict=True))
            raise GridError(
                f"halo {halo} is not 0 along an axis that this network does not look along; "
                f"use --halo {format_zyx(valid)}"
            )
        if any(h < m for h, m in zip3(halo, self.margin)):
            raise GridError(
                f"halo {halo} is below the margin {self.margin} that this unpadded network loses on each side; "
                f"use --halo exact or at least {format_zyx(self.margin)}"
            )
        if any((h - m) % s for h, m, s in zip(halo, self.margin, self.stride, strict=True)):
            valid = to_zyx(m + ceil_to(h - m, s) for h, m, s in zip(halo, self.margin, self.stride, strict=True))
            raise GridError(
                f"halo {halo} is not a multiple of the network's stride {self.stride}, which would shift its pooling "
                f"grid; use --halo {format_zyx(valid)}"
            )
        return halo

    def reaches_beyond(self, halo: Zyx) -> bool:
        """Whether the receptive field reaches beyond this halo, so that seams are possible."""
        return any(not m and c > h for c, h, m in zip(self.context, halo, self.margin, strict=True))

    def input_shape(self, core: Zyx, halo: Zyx) -> Zyx:
        """Return the network input for `core` voxels with `halo` around them, rounded up to a valid size.

        >>> unet = Footprint((0, 107, 107), (0, 107, 107), (1, 16, 16), (0, 92, 92), (1, 188, 188), (0, 92, 92))
        >>> unet.input_shape((1, 388, 388), (0, 92, 92))
        (1, 572, 572)
        """
        return to_zyx(
            n + ceil_to(max(c + 2 * h - n, 0), s)
            for c, h, n, s in zip(core, halo, self.smallest, self.stride, strict=True)
        )


def common_stride(footprints: Sequence[Footprint]) -> Zyx:
    """Return the least common multiple of the networks' strides."""
    return to_zyx(lcm(*steps) for steps in zip(*(footprint.stride for footprint in footprints), strict=True))
