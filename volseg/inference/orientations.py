"""Orientations of a tile: the same tissue seen turned and flipped within its section.

A tile is turned whole, its output turned back before the core is cropped. All tiles have one shape and their origins
sit on the stride, so the turned pooling grid, too, is the same for all of them: averages leave no seam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Orientations: TypeAlias = Literal["one", "flips", "all"]


@dataclass(frozen=True, slots=True)
class Orientation:
    """One way to look at a section: y and x swapped or not, then flipped or not."""

    swapped: bool = False
    flipped: tuple[int, ...] = ()
    """Axes: -2 for y, -1 for x."""

    def turn(self, tile: Tensor) -> Tensor:
        """Turn (..., y, x)."""
        turned = tile.transpose(-2, -1) if self.swapped else tile
        return turned.flip(self.flipped) if self.flipped else turned

    def back(self, tile: Tensor) -> Tensor:
        """Undo `turn`."""
        straight = tile.flip(self.flipped) if self.flipped else tile
        return straight.transpose(-2, -1) if self.swapped else straight


_FLIPS = ((), (-2,), (-1,), (-2, -1))

ORIENTATIONS: dict[Orientations, tuple[Orientation, ...]] = {
    "one": (Orientation(),),
    "flips": tuple(Orientation(flipped=flipped) for flipped in _FLIPS),
    "all": tuple(Orientation(swapped, flipped) for swapped in (False, True) for flipped in _FLIPS),
}
"""The section as it is; its four flips; its eight orientations (rotations by 90 degrees, and flips)."""
