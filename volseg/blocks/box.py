"""Boxes of voxels."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, TypeAlias

from volseg.errors import GridError

if TYPE_CHECKING:
    from collections.abc import Iterable

Zyx: TypeAlias = tuple[int, int, int]
"""Voxels along (z, y, x)."""

ZyxFloat: TypeAlias = tuple[float, float, float]
"""A physical size along (z, y, x), in nanometres."""


def zip3(a: Zyx, b: Zyx) -> tuple[tuple[int, int], ...]:
    """Pair two triples axis by axis."""
    return tuple(zip(a, b, strict=True))


def to_zyx(values: Iterable[int]) -> Zyx:
    """Convert three values to a triple."""
    z, y, x = values
    return z, y, x


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box of voxels, axes always (z, y, x).

    It may extend beyond the volume: a read box does where its halo crosses an edge.

        start            stop
          |-- shape ------|
    ------[###############)------>  one axis
    """

    start: Zyx
    stop: Zyx

    def __post_init__(self) -> None:
        if any(stop < start for start, stop in zip3(self.start, self.stop)):
            raise GridError(f"a box must not end before it starts: start {self.start}, stop {self.stop}")

    @classmethod
    def of_shape(cls, shape: Zyx) -> Box:
        """Return the box of a whole volume.

        >>> Box.of_shape((30, 512, 512)).stop
        (30, 512, 512)
        """
        return cls((0, 0, 0), shape)

    @property
    def shape(self) -> Zyx:
        """Voxels along each axis."""
        return to_zyx(stop - start for start, stop in zip3(self.start, self.stop))

    @property
    def voxels(self) -> int:
        """Total number of voxels."""
        return prod(self.shape)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index into the array of the volume."""
        z, y, x = (slice(start, stop) for start, stop in zip3(self.start, self.stop))
        return z, y, x

    def grow(self, before: Zyx, after: Zyx | None = None) -> Box:
        """Return the box with more voxels before and after it along each axis; `after` is `before` by default.

        >>> Box((0, 16, 16), (4, 32, 32)).grow((0, 8, 8))
        Box(start=(0, 8, 8), stop=(4, 40, 40))
        """
        after = before if after is None else after
        start = to_zyx(a - n for a, n in zip3(self.start, before))
        return Box(start, to_zyx(b + n for b, n in zip3(self.stop, after)))

    def intersection(self, other: Box) -> Box:
        """Return the intersection of two boxes; an empty box if they are disjoint."""
        start = to_zyx(map(max, self.start, other.start))
        return Box(start, to_zyx(map(max, start, map(min, self.stop, other.stop))))

    def union(self, other: Box) -> Box:
        """Return the smallest box that contains both."""
        return Box(to_zyx(map(min, self.start, other.start)), to_zyx(map(max, self.stop, other.stop)))

    def contains(self, other: Box) -> bool:
        """Whether every voxel of `other` is in this box."""
        return self.union(other) == self

    def relative_to(self, origin: Zyx) -> Box:
        """Return the box relative to `origin`.

        >>> Box((4, 20, 20), (5, 30, 30)).relative_to((4, 16, 16))
        Box(start=(0, 4, 4), stop=(1, 14, 14))
        """
        z, y, x = origin
        return self.grow((z, y, x), (-z, -y, -x))

    def __str__(self) -> str:
        return ",".join(f"{a}:{b}" for a, b in zip3(self.start, self.stop))


def ceil_to(value: int, step: int) -> int:
    """Round up to a multiple of `step`.

    >>> [ceil_to(v, 16) for v in (-1, 0, 1, 16, 230)]
    [0, 0, 16, 16, 240]
    """
    return -(-value // step) * step


def floor_to(value: int, step: int) -> int:
    """Round down to a multiple of `step`.

    >>> [floor_to(v, 16) for v in (-1, 0, 15, 16)]
    [-16, 0, 0, 16]
    """
    return value // step * step
