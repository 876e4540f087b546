"""Whether the steps of a volume are seams: scores of the faces of blocks, known or searched.

The planes between faces show what is usual: their mean, and their spread as one standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt
from typing import TYPE_CHECKING

import numpy as np

from volseg.ops.seams import MIN_USUAL, PlaneSteps, reach_of_step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

THRESHOLD = 4.0
"""Score, in standard deviations of a volume without seams, above which the faces of a known block shape are seams."""
MIN_EXCESS = 0.015
"""Excess of faces below which they are none, however certain: about 0.5 % of their voxels off by more than 8 levels."""
MIN_PERIODS = (4, 32, 32)
"""Shortest blocks that are searched (z, y, x): the pooling grids of networks repeat within 32 voxels."""
_MAX_FACE = THRESHOLD
"""What one plane can add to a score, so that a single one, such as a stitch of the source, is never a seam."""
_MAX_STRIDE = 32
"""Of the grids of networks, which are told apart from those of blocks."""
_MAX_OUTLIER = 6.0
"""Deviations beyond so many times the median one say nothing of what is usual."""


@dataclass(frozen=True, slots=True)
class FaceScore:
    """How much the faces of blocks stand out.

    Attributes:
        axes: across which they lie, 0, 1, 2 for z, y, x.
        period: distance of faces along each of these.
        faces: number that was measured, in all windows.
        score: in standard deviations.
        excess: of their steps over usual ones, mean.
        threshold: of the score.
    """

    axes: tuple[int, ...]
    period: tuple[int, ...]
    faces: int
    score: float
    excess: float
    threshold: float = THRESHOLD

    @property
    def is_seam(self) -> bool:
        """Whether they are seams."""
        return self.score > self.threshold and self.excess >= MIN_EXCESS


def score_faces(windows: Iterable[PlaneSteps], block: Sequence[int | None]) -> list[FaceScore]:
    """Score the faces of blocks of a known shape: those in the section together, and those between sections.

    Args:
        windows: of a volume.
        block: shape (z, y, x), from the volume's origin; None along an axis without faces.
    """
    windows = _merged(windows)
    return [
        _score(windows, axes, tuple(int(block[axis] or 0) for axis in axes))
        for axes in (tuple(axis for axis in group if block[axis]) for group in ((1, 2), (0,)))
        if axes
    ]


def search_faces(
    windows: Iterable[PlaneSteps], shape: Sequence[int], likely: Iterable[Sequence[int]] = ()
) -> list[FaceScore]:
    """Search the shape of blocks with seams, and score the most likely one, in the section and between sections.

    The threshold grows with the number of shapes that are tried. A shape that is known is better: seams that are found
    with it may not be found without.

    Args:
        windows: of a volume.
        shape: of the volume (z, y, x).
        likely: shapes that are tried first, such as those of chunks and their multiples.
    """
    windows, likely = _merged(windows), list(likely)
    return [_search(windows, axes, shape, likely) for axes in ((1, 2), (0,))]


def _search(
    windows: list[PlaneSteps], axes: tuple[int, ...], shape: Sequence[int], likely: list[Sequence[int]]
) -> FaceScore:
    """The most certain of all periods along some axes."""
    stated = {tuple(int(block[axis]) for axis in axes) for block in likely}
    first = sorted(periods for periods in stated if _is_period(periods, axes, shape))
    longest = min(shape[axis] for axis in axes) // 2
    rest = [(period,) * len(axes) for period in range(MIN_PERIODS[axes[0]], longest + 1)]
    best = FaceScore(axes, (0,) * len(axes), 0, 0.0, 0.0)
    for candidates in (first, rest):
        threshold = sqrt(THRESHOLD**2 + 2 * log(max(len(candidates), 1)))
        for periods in candidates:
            found = _score(windows, axes, periods, threshold)
            best = max(best, found, key=lambda one: (one.is_seam, one.score))
        if best.is_seam:
            break
    return best


def _is_period(periods: tuple[int, ...], axes: tuple[int, ...], shape: Sequence[int]) -> bool:
    return all(MIN_PERIODS[a] <= p <= shape[a] // 2 for a, p in zip(axes, periods, strict=True))


def _score(
    windows: list[PlaneSteps], axes: tuple[int, ...], periods: tuple[int, ...], threshold: float = THRESHOLD
) -> FaceScore:
    scores, excesses = [np.zeros(0)], [np.zeros(0)]
    for axis, period in zip(axes, periods, strict=True):
        faces = [_faces(window, period) for window in windows if window.axis == axis]
        if faces:
            positions, score, excess = (np.concatenate(values) for values in zip(*faces, strict=True))
            _, plane, count = np.unique(positions, return_inverse=True, return_counts=True)
            # All windows of one plane count as one.
            scores.append(np.bincount(plane, score, count.size) / np.sqrt(count))
            excesses.append(excess)
    every, excess = np.concatenate(scores), np.concatenate(excesses)
    if not every.size:
        return FaceScore(axes, periods, 0, 0.0, 0.0, threshold)
    total = float(np.minimum(every, _MAX_FACE).sum() / sqrt(every.size))
    return FaceScore(axes, periods, excess.size, total, float(excess.mean()), threshold)


def _faces(window: PlaneSteps, period: int) -> tuple[NDArray[np.float64], ...]:
    """Of each face of a window: its position, score, and excess over what is usual; none if too little shows that."""
    excess, none = window.excess, (np.zeros(0),) * 3
    position = window.first + np.arange(excess.size)
    known, distance = ~np.isnan(excess), np.minimum(position % period, -position % period)
    is_face = known & (distance == 0) & (position > 0)
    usual = known & (distance >= reach_of_step(window.axis))
    stride = _grid_stride(period)
    on_grid = usual & (position % stride == 0)
    if not is_face.any() or usual.sum() < MIN_USUAL or on_grid.sum() < 2:
        return none
    # Means, as few rows are skewed: their median would make chance look like steps. Outliers only hide some.
    apart = np.concatenate([_around_mean(excess[usual & (position % stride == k)]) for k in range(stride)])
    limit = _MAX_OUTLIER * float(np.median(np.abs(apart))) or np.inf
    spread = float(np.sqrt(np.mean(np.clip(apart, -limit, limit) ** 2)))
    count = int(on_grid.sum())
    level = float(excess[on_grid].mean())
    if level > excess[usual].mean() + 3 * spread / sqrt(count):  # the network's own grid, whose steps differ more
        spread = max(spread, float(excess[on_grid].std(ddof=1)))
    above = excess[is_face] - level
    if spread == 0:  # nothing steps but faces, if these do
        return position[is_face], np.where(above > 0, 2 * _MAX_FACE, 0.0), above
    return position[is_face], above / (spread * sqrt(1 + 1 / count)), above


def _around_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Deviations from the mean, as large as those of many values; none of a single one."""
    count = values.size
    return (values - values.mean()) * sqrt(count / (count - 1)) if count > 1 else values[:0]


def _merged(windows: Iterable[PlaneSteps]) -> list[PlaneSteps]:
    """Windows beside each other as one: the more rows, the less chance."""
    groups: dict[tuple[int, int, int], list[NDArray[np.float64]]] = {}
    for window in windows:
        groups.setdefault((window.axis, window.first, window.excess.size), []).append(window.excess)
    return [PlaneSteps(axis, first, np.mean(some, axis=0)) for (axis, first, _), some in groups.items()]


def _grid_stride(period: int) -> int:
    """The coarsest grid of a network that faces share with planes between them.

    >>> [_grid_stride(period) for period in (4, 96, 100, 1024)]
    [2, 32, 4, 32]
    """
    stride = 1
    while period % (2 * stride) == 0 and 2 * stride <= min(_MAX_STRIDE, period // 2):
        stride *= 2
    return stride
