"""A box of voxels: the one value that every room exchanges."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from volseg.errors import GridError

Zyx: TypeAlias = tuple[int, int, int]
"""Whole voxels along (z, y, x)."""

ZyxFloat: TypeAlias = tuple[float, float, float]
"""A physical size along (z, y, x), in nanometres."""


def zip3(a: Zyx, b: Zyx) -> tuple[tuple[int, int], ...]:
    """Pair two triples axis by axis."""
    return tuple(zip(a, b, strict=True))


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box of voxels, axes always (z, y, x).

    It may leave the volume: a read box does wherever its halo crosses an edge.

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
        """The box of a whole volume.

        >>> Box.of_shape((30, 512, 512)).stop
        (30, 512, 512)
        """
        return cls((0, 0, 0), shape)

    @property
    def shape(self) -> Zyx:
        """Voxels along each axis."""
        z, y, x = (stop - start for start, stop in zip3(self.start, self.stop))
        return z, y, x

    @property
    def voxels(self) -> int:
        """Voxels in all."""
        return prod(self.shape)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index into an array whose origin is the volume's."""
        z, y, x = (slice(start, stop) for start, stop in zip3(self.start, self.stop))
        return z, y, x

    def grown(self, by: Zyx, after: Zyx | None = None) -> Box:
        """The box with `by` voxels more before each axis and `after` (default `by`) behind it.

        >>> Box((0, 16, 16), (4, 32, 32)).grown((0, 8, 8))
        Box(start=(0, 8, 8), stop=(4, 40, 40))
        """
        behind = by if after is None else after
        start = tuple(a - m for a, m in zip3(self.start, by))
        stop = tuple(b + m for b, m in zip3(self.stop, behind))
        return Box(_triple(start), _triple(stop))

    def intersection(self, other: Box) -> Box:
        """What two boxes share; an empty box where they share nothing."""
        start = _triple(tuple(max(a, b) for a, b in zip3(self.start, other.start)))
        stop = _triple(tuple(min(a, b) for a, b in zip3(self.stop, other.stop)))
        return Box(start, _triple(tuple(max(a, b) for a, b in zip3(start, stop))))

    def union(self, other: Box) -> Box:
        """The smallest box that holds both."""
        start = _triple(tuple(min(a, b) for a, b in zip3(self.start, other.start)))
        return Box(start, _triple(tuple(max(a, b) for a, b in zip3(self.stop, other.stop))))

    def contains(self, other: Box) -> bool:
        """Whether every voxel of `other` is in this box."""
        return all(a <= b for a, b in zip3(self.start, other.start)) and all(
            a >= b for a, b in zip3(self.stop, other.stop)
        )

    def relative_to(self, origin: Zyx) -> Box:
        """The same box, counted from `origin`.

        >>> Box((4, 20, 20), (5, 30, 30)).relative_to((4, 16, 16))
        Box(start=(0, 4, 4), stop=(1, 14, 14))
        """
        start = _triple(tuple(a - o for a, o in zip3(self.start, origin)))
        stop = _triple(tuple(b - o for b, o in zip3(self.stop, origin)))
        return Box(start, stop)

    def __str__(self) -> str:
        return ",".join(f"{a}:{b}" for a, b in zip3(self.start, self.stop))


def _triple(values: tuple[int, ...]) -> Zyx:
    z, y, x = values
    return z, y, x


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
