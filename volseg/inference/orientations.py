"""Orientations of a tile: the same tissue seen turned and flipped within its section.

A tile is turned whole, its output turned back before the core is cropped. All tiles have one shape and their origins
sit on the stride, so the turned pooling grid, too, is the same for all of them: averages leave no seam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Span: TypeAlias = tuple[int, int]
"""Start and stop along an axis."""

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

    def seen(self, spans: Sequence[Span], sides: Sequence[int]) -> list[Span]:
        """Where a box lies once what holds it is turned.

        Args:
            spans: (start, stop) along each axis, y and x last.
            sides: of what holds the box.

        >>> Orientation(swapped=True, flipped=(-1,)).seen([(1, 2), (3, 5)], [10, 8])
        [(3, 5), (8, 9)]
        """
        turned, lengths = list(spans), list(sides)
        if self.swapped:
            turned[-2:], lengths[-2:] = turned[:-3:-1], lengths[:-3:-1]
        for axis in self.flipped:
            turned[axis] = (lengths[axis] - turned[axis][1], lengths[axis] - turned[axis][0])
        return turned


_FLIPS = ((), (-2,), (-1,), (-2, -1))

ORIENTATIONS: dict[Orientations, tuple[Orientation, ...]] = {
    "one": (Orientation(),),
    "flips": tuple(Orientation(flipped=flipped) for flipped in _FLIPS),
    "all": tuple(Orientation(swapped, flipped) for swapped in (False, True) for flipped in _FLIPS),
}
"""The section as it is; its four flips; its eight orientations (rotations by 90 degrees, and flips)."""
