"""Moments of the tissue in a section, added window by window: the same for any windows.

Voxels without data do not count: zeros (the fill around an aligned volume), NaN around the tissue, and any value that
fills a whole tile of 64 x 64 voxels of the section.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

TILE = 64
"""Side of the tiles, counted from the section's first voxel, in which a single value is no tissue."""
_PIECE = 1 << 17
"""Voxels that are added at once; so few that sums of squares of 16-bit integers are exact in float64."""
_ROW = 256
"""Bytes whose sum of squares is exact in float32."""
_ONES = np.ones(_ROW, np.float32)
_PROBES = ((63, 63), (31, 32), (0, 63), (63, 0), (16, 48))
"""Voxels of a tile that are compared with its first one before all are."""


class Moments(NamedTuple):
    """Moments of the tissue voxels of a section or a volume.

    Attributes:
        mean: of the voxels; 0 if there are none.
        std: standard deviation; 0 if there are none, or all are equal.
        voxels: their number.
    """

    mean: float
    std: float
    voxels: int

    @property
    def constants(self) -> tuple[float, float]:
        """Mean and standard deviation for normalisation; the latter is infinite without tissue, whose input is 0.

        Tissue of a single grey value gets 1, and so the input 0 too.
        """
        return self.mean, self.std or (1.0 if self.voxels else float("inf"))


@dataclass
class SectionSum:
    """Sums over the tissue of a section (y, x).

    Attributes:
        dtype: of its voxels.
        fills: values other than 0 that are no tissue; any that fill a tile are added.
        values: the tissue voxels, if they are collected.
    """

    dtype: np.dtype[Any]
    collect: bool = False
    fills: set[float] = field(default_factory=set)
    values: list[NDArray[np.float64]] = field(default_factory=list)
    _count: int = 0
    _sum: float = 0
    _squares: float = 0
    _pivot: float | None = None

    def add(self, window: NDArray[Any], start: tuple[int, int] = (0, 0)) -> None:
        """Add a window whose first voxel lies at (y, x); voxels of 0 do not count.

        Args:
            window: (y, x), finite.
            start: its place in the section.
        """
        self.fills |= tile_fills(window, start, self.fills)
        rows = max(1, _PIECE // max(1, window.shape[1]))
        buffer = np.empty(rows * window.shape[1], np.float32)
        for first in range(0, len(window), rows):
            self._add(window[first : first + rows], buffer)

    def _add(self, piece: NDArray[Any], buffer: NDArray[np.float32]) -> None:
        for value in self.fills:
            piece = np.where(piece == value, piece.dtype.type(0), piece)
        if self.collect:
            self.values.append(piece[piece != 0].astype(np.float64))
            return
        count = int(np.count_nonzero(piece))
        if not count:
            return
        if self.dtype == np.uint8 and piece.size % _ROW == 0:
            # float32 is twice as fast as float64.
            rows = buffer[: piece.size].reshape(-1, _ROW)
            np.copyto(rows, piece.reshape(-1, _ROW))
            self._count += count
            self._sum += int(np.vecdot(rows, _ONES).sum(dtype=np.float64))
            self._squares += int(np.vecdot(rows, rows).sum(dtype=np.float64))
            return
        grey = piece.astype(np.float64)
        if self.dtype.kind == "f":
            # Squares of differences from some tissue voxel keep the digits that squares of large values lose.
            if self._pivot is None:
                self._pivot = float(piece[piece != 0][0])
            grey = np.where(piece != 0, grey - self._pivot, 0.0)
        flat = grey.ravel()
        # Not np.dot, whose threads wait for each other on a busy machine.
        total, squares = float(flat.sum()), float(np.einsum("i,i->", flat, flat))
        exact = self.dtype.kind != "f"
        self._count += count
        self._sum += int(total) if exact else total
        self._squares += int(squares) if exact else squares

    def moments(self, measure: Callable[[NDArray[np.float64]], tuple[float, float]] | None = None) -> Moments:
        """Mean, standard deviation and count; or what `measure` returns of the collected voxels."""
        if self.collect:
            values = np.concatenate(self.values) if self.values else np.empty(0)
            if measure is None or not values.size:
                return Moments(0.0, 0.0, 0)
            mean, std = map(float, measure(values))
            return Moments(mean, std, int(values.size))
        if not self._count:
            return Moments(0.0, 0.0, 0)
        mean = self._sum / self._count
        # Of integers this numerator is exact.
        variance = max(0, self._squares * self._count - self._sum * self._sum) / self._count**2
        return Moments((self._pivot or 0.0) + mean, float(variance) ** 0.5, self._count)


def tile_fills(window: NDArray[Any], start: tuple[int, int], known: set[float]) -> set[float]:
    """Values other than 0 that fill a whole tile in a window, apart from known ones.

    Args:
        window: (y, x).
        start: place of its first voxel in the section.
        known: values that are left out.
    """
    first = [-a % TILE for a in start]
    inside = window[first[0] :, first[1] :]
    ny, nx = (n // TILE for n in inside.shape)
    if not ny or not nx:
        return set()
    tiles = inside[: ny * TILE, : nx * TILE].reshape(ny, TILE, nx, TILE)
    corner = tiles[:, 0, :, 0]
    candidates = corner != 0
    for y, x in _PROBES:
        candidates &= corner == tiles[:, y, :, x]
    found: set[float] = set()
    for y, x in np.argwhere(candidates):
        value = corner[y, x]
        if float(value) not in known | found and bool((tiles[y, :, x, :] == value).all()):
            found.add(float(value))
    return found


def pooled(sections: Sequence[tuple[float, float, float]]) -> Moments:
    """Moments of all voxels of several sections, each (mean, standard deviation, count).

    >>> pooled([(10.0, 0.0, 1), (20.0, 0.0, 1)])
    Moments(mean=15.0, std=5.0, voxels=2)
    """
    mean, std, count = np.asarray(sections, np.float64).reshape(-1, 3).T
    if not count.any():
        return Moments(0.0, 0.0, 0)
    weight = count / count.sum()
    total = float((weight * mean).sum())
    variance = float((weight * (std**2 + (mean - total) ** 2)).sum())
    return Moments(total, variance**0.5, int(count.sum()))


class NanTiles:
    """Where a float section holds NaN or infinity: around the tissue, or in its midst.

    NaN is around the tissue if its tile or one beside it was seen and holds no tissue, or if it reaches the border of
    what is read there.
    """

    def __init__(self, start: tuple[int, int], stop: tuple[int, int]) -> None:
        """Count nothing yet.

        Args:
            start: first voxel (y, x) of the section that is read.
            stop: end of the voxels that are read.
        """
        tiles = tuple(-(-n // TILE) for n in stop)
        self._start, self._stop = start, stop
        self._bad, self._seen, self._tissue, self._at_border = (np.zeros(tiles, bool) for _ in range(4))
        self._voxel: dict[tuple[int, int], tuple[int, int]] = {}

    @property
    def has_non_finite(self) -> bool:
        """Whether any voxel is NaN or infinite."""
        return bool(self._voxel)

    def add(self, window: NDArray[Any], start: tuple[int, int] = (0, 0)) -> None:
        """Add a window (y, x) whose first voxel lies at `start` of the section."""
        finite = np.isfinite(window)
        tissue = _any_in_tiles(finite & (window != 0), start)
        y, x = (a // TILE for a in start)
        within = (slice(y, y + tissue.shape[0]), slice(x, x + tissue.shape[1]))
        self._tissue[within] |= tissue
        self._seen[within] = True
        if finite.all():
            return
        for tile_y, tile_x in np.argwhere(_any_in_tiles(~finite, start)):
            tile = (int(tile_y) + y, int(tile_x) + x)
            self._bad[tile] = True
            voxels = _bad_voxels(finite, start, tile)
            self._voxel.setdefault(tile, (int(voxels[0][0]), int(voxels[0][1])))
            self._at_border[tile] |= bool(((voxels == self._start) | (voxels == np.subtract(self._stop, 1))).any())

    def damage(self) -> tuple[int, int] | None:
        """The first voxel (y, x) that is NaN or infinite in the midst of tissue; None if there is none."""
        outside = np.pad(self._seen & ~self._tissue, 1, constant_values=False)
        near = self._at_border.copy()
        height, width = near.shape
        for y in range(3):
            for x in range(3):
                near |= outside[y : y + height, x : x + width]
        inner = np.argwhere(self._bad & self._tissue & ~near)
        return self._voxel[int(inner[0][0]), int(inner[0][1])] if len(inner) else None


def _any_in_tiles(values: NDArray[np.bool_], start: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether any value of a window is true, in each tile that it touches."""
    for axis, first in enumerate(start):
        edges = np.r_[0, np.arange(TILE - first % TILE, values.shape[axis], TILE)]
        values = np.logical_or.reduceat(values, edges, axis=axis)
    return values


def _bad_voxels(finite: NDArray[np.bool_], start: tuple[int, int], tile: tuple[int, int]) -> NDArray[np.int64]:
    """The voxels of a window that are not finite and lie in a tile, (n, 2) in the section."""
    first = [max(0, t * TILE - a) for t, a in zip(tile, start, strict=True)]
    stop = [(t + 1) * TILE - a for t, a in zip(tile, start, strict=True)]
    places: NDArray[np.int64] = np.argwhere(~finite[first[0] : stop[0], first[1] : stop[1]]) + first + start
    return places
