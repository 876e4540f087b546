"""Centre-lines of dendrites and axons that fill a box of tissue. All in nanometres, (z, y, x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from volseg.phantom.noise import Nm

MARGIN_NM = 350.0  # neurites also grow outside the volume, so that its faces look like its inside
_STEP_NM = 45.0
_LONGEST_NM = 12_000.0
_TURNS = 6
_RASTER_NM = 40.0


@dataclass(frozen=True, slots=True)
class Neurite:
    """One cell's centre-line: points (n, 3) in nm and the radius in nm around each, (n,)."""

    points: NDArray[np.float64]
    radius: NDArray[np.float64]

    @property
    def tangents(self) -> NDArray[np.float64]:
        """Unit directions (n, 3) along the line; any direction for a line of one point."""
        if len(self.points) == 1:
            return np.array([[0.0, 0.0, 1.0]])
        along = np.gradient(self.points, axis=0)
        return np.asarray(along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9))


@dataclass(frozen=True, slots=True)
class Calibre:
    """Neurites of one thickness: radius range in nm, and the fraction of the tissue they may fill."""

    min_radius: float
    max_radius: float
    fraction: float


# Large dendrites first, while there is room; then thin axons until the tissue is full.
CALIBRES = (
    Calibre(260, 420, 0.12),
    Calibre(130, 220, 0.13),
    Calibre(80, 130, 0.16),
    Calibre(50, 80, 1.00),
)


def grow_neurites(extent_nm: Nm, rng: np.random.Generator) -> list[Neurite]:
    """Fill the box from 0 to `extent_nm` (and a margin around it) with neurites that do not cross."""
    tissue = _Tissue(np.asarray(extent_nm, dtype=np.float64))
    for calibre in CALIBRES:
        for radius in _radii(calibre, tissue, rng):
            seed = tissue.free_spot(radius, rng)
            if seed is None:
                break
            tissue.add(_grow(seed, radius, tissue, rng), reach_nm=calibre.max_radius)
    return tissue.neurites


def _radii(calibre: Calibre, tissue: _Tissue, rng: np.random.Generator) -> Iterator[float]:
    """Yield radii to try, until this calibre fills its fraction of the tissue."""
    filled_before = tissue.filled
    while tissue.filled - filled_before < calibre.fraction:
        yield float(rng.uniform(calibre.min_radius, calibre.max_radius))


class _Tissue:
    """The neurites grown so far, and a raster of the distance to the nearest one."""

    def __init__(self, extent: NDArray[np.float64]) -> None:
        self.low = np.full(3, -MARGIN_NM)
        self.high = extent + MARGIN_NM
        self.neurites: list[Neurite] = []
        self.filled = 0.0
        shape = np.ceil((self.high - self.low) / _RASTER_NM).astype(int) + 1
        self._room = np.full(shape, np.inf, np.float32)

    def add(self, neurite: Neurite, reach_nm: float) -> None:
        """Add a neurite; the raster is exact up to `reach_nm` from its surface."""
        self.neurites.append(neurite)
        volume = float(np.prod(self.high - self.low))
        self.filled += float(np.sum(neurite.radius**2) * np.pi * _STEP_NM / volume)
        for point, radius in zip((neurite.points - self.low) / _RASTER_NM, neurite.radius, strict=True):
            self._stamp(point, radius, reach_nm)

    def _stamp(self, point: NDArray[np.float64], radius: float, reach_nm: float) -> None:
        reach = (radius + reach_nm) / _RASTER_NM
        start = np.maximum(np.floor(point - reach), 0).astype(int)
        stop = np.maximum(np.ceil(point + reach) + 1, 0).astype(int)
        box = self._room[tuple(map(slice, start, stop))]
        squares = (
            (np.arange(first, first + size) - place) ** 2
            for first, size, place in zip(start, box.shape, point, strict=True)
        )
        z, y, x = np.ix_(*squares)
        np.minimum(box, np.sqrt(z + y + x) * _RASTER_NM - radius, out=box, casting="same_kind")

    def clearance(self, points: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the distance in nm (n,) from points (n, 3) to the nearest neurite's surface."""
        nodes = np.rint((points - self.low) / _RASTER_NM).astype(int)
        z, y, x = np.clip(nodes, 0, np.array(self._room.shape) - 1).T
        return np.asarray(self._room[z, y, x])

    def free_spot(self, radius: float, rng: np.random.Generator) -> NDArray[np.float64] | None:
        """Find a point with room for `radius`; None if the tissue seems full."""
        spots = rng.uniform(self.low, self.high, size=(min(self._room.size, 20_000), 3))
        free = np.flatnonzero(self.clearance(spots) >= radius)
        return spots[free[0]] if free.size else None

    def contains(self, point: NDArray[np.float64]) -> bool:
        return bool(np.all((point >= self.low) & (point <= self.high)))


def lifting_map(points: NDArray[np.float64], radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points (n, 4) with a fourth coordinate that turns Euclidean distance into power distance.

    From a query (z, y, x, 0) the squared distance is |q - p|^2 - r^2 + max(r)^2, so a nearest-neighbour search finds
    the ball of the smallest power distance.
    """
    height = np.sqrt(np.maximum(radius.max() ** 2 - radius**2, 0))
    return np.column_stack([points, height])


def _grow(seed: NDArray[np.float64], radius: float, tissue: _Tissue, rng: np.random.Generator) -> Neurite:
    """Grow both ways from `seed` until the line leaves the tissue or finds no room."""
    direction = _unit(rng.standard_normal(3))
    forward = list(_walk(seed, direction, radius, tissue, rng))
    backward = list(_walk(seed, -direction, radius, tissue, rng))
    points = np.array([*backward[::-1], seed, *forward])
    along = np.arange(len(points)) * _STEP_NM
    # Varicosities: boutons and narrow necks along one neurite.
    beads = np.sin(along / rng.uniform(90, 260) + rng.uniform(0, 6.28)) * rng.uniform(0.05, 0.28)
    return Neurite(points, radius * (1 + beads))


def _walk(
    start: NDArray[np.float64],
    direction: NDArray[np.float64],
    radius: float,
    tissue: _Tissue,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.float64]]:
    """Yield points (3,) one step apart; each step takes the turn with the most room of a few."""
    point = start
    turn = 0.35 if radius < 150 else 0.15
    for _ in range(int(_LONGEST_NM / _STEP_NM)):
        turns = direction + rng.standard_normal((_TURNS, 3)) * turn
        turns /= np.linalg.norm(turns, axis=1, keepdims=True)
        room = tissue.clearance(point + turns * _STEP_NM)
        best = int(np.argmax(np.minimum(room, 1.2 * radius)))
        direction, point = turns[best], point + turns[best] * _STEP_NM
        if room[best] < 0.8 * radius or not tissue.contains(point):
            return
        yield point


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector)
