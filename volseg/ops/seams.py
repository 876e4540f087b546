"""Whether a probability volume has seams: steps at the faces of blocks that stand out from those elsewhere.

    . . . o  face             A parabola through four voxels on either side says what the face should hold; the
            |       . .       difference of the two is the step. A block that saw too little around it, or was
            |  o .            normalised by its own voxels, steps at its faces and nowhere else.

A step counts by how far it exceeds the largest of its neighbours in the same row, so that edges of the tissue count for
little; the planes between the faces show what is usual.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

THRESHOLD = 4.25
"""Score, in standard deviations of a volume without seams, above which the faces of a known block shape are seams."""
MIN_EXCESS = 0.015
"""Excess of faces below which they are none, however certain: about 0.5 % of their voxels off by more than 8 levels."""
MIN_PERIODS = (4, 32, 32)
"""Shortest blocks that are searched (z, y, x): the pooling grids of networks repeat within 32 voxels."""
_MAX_FACE = THRESHOLD
"""What one plane can add to a score, so that a single one, such as a stitch of the source, is never a seam."""
_GROUP, _MOVING = 8, 3
"""Voxels along a plane that are summed, and how many of these sums are averaged: errors of blocks are smooth there."""
_ROUNDING = 0.5
"""Grey levels of steps that rounding to uint8 explains."""
_MAX_EXCESS = 2.0
"""Of one row."""
_MAX_STRIDE = 32
"""Of the grids of networks, which are told apart from those of blocks."""
_CACHED = 1 << 18
"""Voxels that are measured at once."""
_MAX_OUTLIER = 6.0
"""Deviations beyond so many times the median one say nothing of what is usual."""
_MIN_USUAL = 8
"""Planes that show what is usual."""


@dataclass(frozen=True, slots=True)
class _Kernel:
    """How a step is measured.

    Attributes:
        weights: of the differences of voxels at 1, 2, .. after and before a plane.
        gap: distance of the nearest plane that a step does not touch.
        compared: planes on each side that it is compared with.
    """

    weights: tuple[float, ...]
    gap: int
    compared: int

    @property
    def edge(self) -> int:
        """Planes at both ends that cannot be measured."""
        return len(self.weights) + self.gap + self.compared - 1


_IN_SECTION = _Kernel((123 / 123, -19 / 123, -51 / 123, 27 / 123), gap=4, compared=5)
"""The value half a voxel beyond four, by the parabola that fits them best."""
_ACROSS_SECTIONS = _Kernel((1.0,), gap=1, compared=2)
"""Sections are too far apart for a curve through them."""


def _kernel(axis: int) -> _Kernel:
    return _IN_SECTION if axis else _ACROSS_SECTIONS


@dataclass(frozen=True)
class PlaneSteps:
    """Steps of a window of a volume, from plane to plane along one axis.

    Attributes:
        axis: 0, 1, 2 for z, y, x.
        first: position in the volume of the window's first voxel along the axis.
        excess: by which steps between a position and the one before exceed their neighbours, mean over the plane, 0 to
            2; NaN near the window's ends.
    """

    axis: int
    first: int
    excess: NDArray[np.float64]


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


def min_extent(axis: int) -> int:
    """Voxels along an axis that a window needs at least."""
    return 2 * _kernel(axis).edge + _MIN_USUAL


def grey_level(voxels: NDArray[Any]) -> float:
    """What one of 255 grey levels is in the type of a volume.

    >>> grey_level(np.uint8([3])), grey_level(np.uint16([3])), round(grey_level(np.float32([0.5])), 4)
    (1.0, 257.0, 0.0039)
    """
    if voxels.dtype.kind in "iu":
        return float(np.iinfo(voxels.dtype).max) / 255
    largest = float(np.nanmax(voxels, initial=0.0))
    return max(largest, 1.0) / 255


def plane_steps(voxels: NDArray[Any], axis: int, first: int = 0, level: float = 1.0) -> PlaneSteps:
    """Measure the steps of a window.

    Args:
        voxels: (z, y, x), probabilities of any type.
        axis: across which planes lie.
        first: position of the window along the axis, in the volume.
        level: one grey level.
    """
    kernel, length, along = _kernel(axis), voxels.shape[axis], 1 if axis == 2 else 2
    excess = np.full(length, np.nan)
    if length < min_extent(axis) or voxels.shape[along] < _GROUP * _MOVING or not voxels.size:
        return PlaneSteps(axis, first, excess)
    images = _images(voxels, axis)
    total = np.zeros(length - 2 * kernel.edge + 1)
    for image in images:
        total += _excess(_summed(image), kernel, _ROUNDING * level)
    excess[kernel.edge : length - kernel.edge + 1] = total / len(images)
    return PlaneSteps(axis, first, excess)


def _images(voxels: NDArray[Any], axis: int) -> list[NDArray[Any]]:
    """The planes of a window as rows of images (planes, along), each small enough for the processor's cache."""
    if axis:
        return [section if axis == 1 else section.T for section in voxels]
    flat = voxels.reshape(len(voxels), -1)
    parts = max(voxels.size // _CACHED, 1)
    return np.array_split(flat, min(parts, flat.shape[1] // (_GROUP * _MOVING)), axis=1)


def _summed(image: NDArray[Any]) -> NDArray[np.float32]:
    """Mean of neighbours along the planes of an image (planes, along)."""
    count = image.shape[1] // _GROUP
    wide = np.uint16 if image.dtype == np.uint8 else np.float32
    groups: NDArray[Any] = image[:, : count * _GROUP : _GROUP].astype(wide)
    for k in range(1, _GROUP):
        groups += image[:, k : count * _GROUP : _GROUP].astype(wide, copy=False)
    if groups.dtype == np.float32:
        np.nan_to_num(groups, copy=False, posinf=0.0, neginf=0.0)
    sums = groups[:, _MOVING - 1 :].astype(np.float32)
    for k in range(_MOVING - 1):
        sums += groups[:, k : k + sums.shape[1]]
    sums *= np.float32(1 / (_GROUP * _MOVING))
    return sums


def _excess(image: NDArray[np.float32], kernel: _Kernel, rounding: float) -> NDArray[np.float64]:
    """Excess of each plane that can be measured, mean along it."""
    half, length = len(kernel.weights), image.shape[0]
    planes = length - 2 * half + 1
    step = image[half : half + planes] - image[half - 1 : half - 1 + planes]
    for k, weight in enumerate(kernel.weights[1:], start=1):
        difference = image[half + k : half + k + planes] - image[half - 1 - k : half - 1 - k + planes]
        difference *= np.float32(weight)
        step += difference
    np.abs(step, out=step)
    reach, largest = kernel.gap + kernel.compared - 1, _moving_maximum(step, kernel.compared)
    measured = planes - 2 * reach
    behind = reach + kernel.gap
    others = np.maximum(largest[:measured], largest[behind : behind + measured])
    excess = step[reach : reach + measured] - others
    others += np.float32(rounding)
    excess /= others
    np.maximum(excess, np.float32(0), out=excess)
    np.minimum(excess, np.float32(_MAX_EXCESS), out=excess)
    width = excess.shape[1]
    mean: NDArray[np.float64] = excess @ np.full(width, 1 / width, np.float32)
    return mean


def _moving_maximum(values: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Maximum of `width` values from each on, along the first axis.

    >>> _moving_maximum(np.float32([[3], [1], [4], [1], [5]]), 3).ravel().tolist()
    [4.0, 4.0, 5.0]
    """
    done = 1
    while done < width:
        step = min(done, width - done)
        values = np.maximum(values[:-step], values[step:])
        done += step
    return values


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
    usual = known & (distance >= _kernel(window.axis).gap)
    stride = _grid_stride(period)
    on_grid = usual & (position % stride == 0)
    if not is_face.any() or usual.sum() < _MIN_USUAL or on_grid.sum() < 2:
        return none
    # Means, as few rows are skewed: their median would make chance look like steps. Outliers only hide some.
    apart = np.concatenate([_around_mean(excess[usual & (position % stride == k)]) for k in range(stride)])
    limit = _MAX_OUTLIER * float(np.median(np.abs(apart))) or np.inf
    spread = float(np.sqrt(np.mean(np.clip(apart, -limit, limit) ** 2)))
    above = excess[is_face] - excess[on_grid].mean()
    if spread == 0:  # nothing steps but faces, if these do
        return position[is_face], np.where(above > 0, 2 * _MAX_FACE, 0.0), above
    return position[is_face], above / (spread * sqrt(1 + 1 / on_grid.sum())), above


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
