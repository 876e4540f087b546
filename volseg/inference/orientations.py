"""Orientations of a tile: rotations by 90 degrees and flips within its section.

The whole tile is transformed, and its output is transformed back before the core is cropped. All tiles have one shape
and origins on the stride, so the transformed pooling grid is the same for all of them: averages leave no seam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from volseg.inference.settings import Orientations

Span: TypeAlias = tuple[int, int]
"""Start and stop along an axis."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """A transform of a section: first transpose y and x, then flip."""

    transpose: bool = False
    flip_axes: tuple[int, ...] = ()
    """-2 for y, -1 for x."""

    def apply(self, tile: Tensor) -> Tensor:
        """Transform (..., y, x)."""
        tile = tile.transpose(-2, -1) if self.transpose else tile
        return tile.flip(self.flip_axes) if self.flip_axes else tile

    def invert(self, tile: Tensor) -> Tensor:
        """Undo `apply`."""
        tile = tile.flip(self.flip_axes) if self.flip_axes else tile
        return tile.transpose(-2, -1) if self.transpose else tile

    def apply_to_spans(self, spans: Sequence[Span], shape: Sequence[int]) -> list[Span]:
        """Transform the position of a box within a tile.

        Args:
            spans: (start, stop) of the box along each axis, y and x last.
            shape: of the tile.

        >>> Orientation(transpose=True, flip_axes=(-1,)).apply_to_spans([(1, 2), (3, 5)], [10, 8])
        [(3, 5), (8, 9)]
        """
        spans, shape = list(spans), list(shape)
        if self.transpose:
            spans[-2:], shape[-2:] = spans[:-3:-1], shape[:-3:-1]
        for axis in self.flip_axes:
            spans[axis] = (shape[axis] - spans[axis][1], shape[axis] - spans[axis][0])
        return spans


_FLIPS = ((), (-2,), (-1,), (-2, -1))

ORIENTATIONS: dict[Orientations, tuple[Orientation, ...]] = {
    "one": (Orientation(),),
    "flips": tuple(Orientation(flip_axes=axes) for axes in _FLIPS),
    "all": tuple(Orientation(transpose, axes) for transpose in (False, True) for axes in _FLIPS),
}
"""The section as it is; its four flips; its eight orientations (rotations by 90 degrees, and flips)."""
