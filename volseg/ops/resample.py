"""Another voxel size: means over larger voxels, straight lines between smaller ones; for labels the mode.

Voxel i of the result covers [i * r, (i + 1) * r) of the source, in voxels of the source from the corner of its first
one; r is the ratio of the sizes. Weights are whole numbers, so that sums are exact and no voxel depends on its box.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import to_zyx

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from numpy.typing import NDArray

    from volseg.blocks import Zyx

_MAX_VOTES = 1 << 12
"""Votes of all voxels along an axis, so that those of a cell fit 64 bits."""
_MAX_TAPS = 1 << 21
"""Labels that are sorted at once."""


@dataclass(frozen=True, slots=True)
class Taps:
    """The source's voxels that voxels of a result see along an axis.

    Attributes:
        first: position of the first of them in the source, (n,).
        weights: of it and of those after it, (n, k), whole numbers; 0 beyond the last.
    """

    first: NDArray[np.int64]
    weights: NDArray[np.int64]

    @property
    def total(self) -> NDArray[np.int64]:
        """Sum of the weights of each voxel of the result."""
        total: NDArray[np.int64] = self.weights.sum(axis=1)
        return total

    @property
    def span(self) -> tuple[int, int]:
        """Start and stop of all source voxels that count."""
        return int(self.first[0]), int(self.positions().max()) + 1

    def positions(self) -> NDArray[np.int64]:
        """Position of each tap in the source, (n, k); those without weight are at the first."""
        steps = np.arange(self.weights.shape[1])
        positions: NDArray[np.int64] = self.first[:, None] + np.where(self.weights > 0, steps, 0)
        return positions


def mean_taps(ratio: Fraction, length: int, start: int, stop: int) -> Taps:
    """Taps of voxels [start, stop) of a result: areas if its voxels are larger, else two neighbours.

    Beyond the centres of the outermost voxels of the source these are repeated.

    Args:
        ratio: size of a voxel of the result over that of the source.
        length: of the source, in voxels.
        start: first voxel of the result.
        stop: the one after its last.

    >>> from fractions import Fraction
    >>> mean_taps(Fraction(5, 2), 6, 0, 3).weights.tolist()  # in halves of a voxel
    [[2, 2, 1], [1, 2, 2], [2, 0, 0]]
    >>> taps = mean_taps(Fraction(1, 2), 2, 0, 4)
    >>> taps.first.tolist(), taps.weights.tolist()
    ([0, 0, 0, 1], [[4, 0], [3, 1], [1, 3], [4, 0]])
    """
    if ratio == 1:
        return Taps(np.arange(start, stop), np.ones((stop - start, 1), np.int64))
    if ratio > 1:
        return _areas(ratio, length, start, stop)
    width, unit = ratio.numerator, ratio.denominator
    whole = 2 * unit
    first, beyond = _divided(2 * width, width - unit, whole, start, stop)
    is_inside = (first >= 0) & (first < length - 1)
    second = np.where(is_inside, beyond, 0)
    return Taps(np.clip(first, 0, length - 1), np.stack([whole - second, second], axis=1))


def mode_taps(ratio: Fraction, length: int, start: int, stop: int) -> Taps:
    """Taps of labels: areas as votes if the result's voxels are larger, else the voxel at the centre.

    Args:
        ratio: as for `mean_taps`.
        length: of the source, in voxels.
        start: first voxel of the result.
        stop: the one after its last.

    >>> from fractions import Fraction
    >>> mode_taps(Fraction(1, 2), 2, 0, 4).first.tolist()
    [0, 0, 1, 1]
    """
    if ratio > 1:
        taps = _areas(ratio, length, start, stop)
        if ratio.numerator <= _MAX_VOTES:
            return taps
        return Taps(taps.first, np.rint(taps.weights * (_MAX_VOTES / ratio.numerator)).astype(np.int64))
    first, _ = _divided(2 * ratio.numerator, ratio.numerator, 2 * ratio.denominator, start, stop)
    return Taps(np.minimum(first, length - 1), np.ones((stop - start, 1), np.int64))


def _divided(step: int, offset: int, unit: int, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Quotients and rests of step * i + offset by a unit, for i of [start, stop)."""
    base = step * start + offset
    parts = base % unit + np.arange(stop - start, dtype=np.int64) * step
    return base // unit + parts // unit, parts % unit


def _areas(ratio: Fraction, length: int, start: int, stop: int) -> Taps:
    width, unit = ratio.numerator, ratio.denominator
    first, offset = _divided(width, 0, unit, start, stop)
    steps = np.arange((width + unit - 2) // unit + 1) * unit
    end = np.minimum(offset + width, (length - first) * unit)[:, None]
    weights = np.minimum(end, steps + unit) - np.maximum(offset[:, None], steps)
    return Taps(first, np.maximum(weights, 0))


def resample_axis(values: NDArray[Any], taps: Taps, axis: int, low: int = 0) -> NDArray[np.float64]:
    """Weighted sums along an axis, not yet divided by the total weight.

    Args:
        values: voxels of the source from position `low` on.
        taps: of the result.
        axis: of the values.
        low: position of the first value in the source.

    >>> from fractions import Fraction
    >>> resample_axis(np.uint8([1, 2, 5]), mean_taps(Fraction(2), 3, 0, 2), 0).tolist()
    [3.0, 5.0]
    """
    shape = [1] * values.ndim
    shape[axis] = len(taps.first)
    positions = taps.positions() - low
    total: NDArray[np.float64] = _taken(values, positions[:, 0], axis) * _column(taps, 0, shape)
    for tap in range(1, taps.weights.shape[1]):
        if taps.weights[:, tap].any():
            total += _taken(values, positions[:, tap], axis) * _column(taps, tap, shape)
    return total


def _column(taps: Taps, tap: int, shape: list[int]) -> NDArray[np.float64]:
    return taps.weights[:, tap].astype(np.float64).reshape(shape)


def _taken(values: NDArray[Any], positions: NDArray[np.int64], axis: int) -> NDArray[Any]:
    """Values at positions along an axis: a view if these are evenly spaced."""
    step = int(positions[1] - positions[0]) if len(positions) > 1 else 1
    if step > 0 and (np.diff(positions) == step).all():
        index = [slice(None)] * values.ndim
        index[axis] = slice(int(positions[0]), int(positions[-1]) + 1, step)
        return values[tuple(index)]
    return np.take(values, positions, axis=axis)


def rounded(values: NDArray[np.float64], dtype: str) -> NDArray[Any]:
    """Values in a type: whole numbers to the nearest, halves to even ones; all that is not finite becomes NaN."""
    if np.dtype(dtype).kind != "f":
        return np.rint(values).astype(dtype)
    result: NDArray[Any] = values.astype(dtype)
    result[~np.isfinite(result)] = np.nan
    return result


def resample_mode(labels: NDArray[Any], taps: Sequence[Taps], low: Zyx) -> NDArray[Any]:
    """Take the label with the largest part of each cell; the first in C order of several.

    Args:
        labels: (z, y, x) of the source from position `low` on.
        taps: of `mode_taps`, along z, y, x.
        low: position of the first label in the source.

    >>> from fractions import Fraction
    >>> labels = np.array([[[5, 7, 7], [7, 9, 9]]])
    >>> taps = [mode_taps(Fraction(r), n, 0, 1) for r, n in ((1, 1), (2, 2), (2, 3))]
    >>> resample_mode(labels, taps, (0, 0, 0)).tolist()
    [[[7]]]
    """
    positions = [one.positions() - a for one, a in zip(taps, low, strict=True)]
    shape = to_zyx(len(one.first) for one in taps)
    sizes = [one.weights.shape[1] for one in taps]
    result = np.empty(shape, labels.dtype)
    rows = max(1, _MAX_TAPS // (shape[2] * prod(sizes)))
    for z in range(shape[0]):
        for y in range(0, shape[1], rows):
            within = slice(y, y + rows)
            index = positions[0][z], positions[1][within].ravel(), positions[2].ravel()
            cells = labels[np.ix_(*index)].reshape(sizes[0], -1, sizes[1], shape[2], sizes[2])
            votes = np.einsum("k,yl,xm->yxklm", taps[0].weights[z], taps[1].weights[within], taps[2].weights)
            flat = cells.transpose(1, 3, 0, 2, 4).reshape(-1, prod(sizes))
            result[z, within] = _modes(flat, votes.reshape(flat.shape)).reshape(-1, shape[2])
    return result


def _modes(cells: NDArray[Any], votes: NDArray[np.int64]) -> NDArray[Any]:
    """The label of each row with most votes; the first of several."""
    result = cells[:, 0].copy()
    mixed = np.flatnonzero((cells != cells[:, :1]).any(axis=1))
    if not len(mixed):
        return result
    cells, votes = cells[mixed], votes[mixed]
    count = cells.shape[1]
    order = np.argsort(cells, axis=1, kind="stable")
    found = np.take_along_axis(cells, order, axis=1)
    is_new = np.ones(cells.shape, bool)
    is_new[:, 1:] = found[:, 1:] != found[:, :-1]
    runs = np.flatnonzero(is_new)
    sums = np.add.reduceat(np.take_along_axis(votes, order, axis=1).ravel(), runs)
    # Of equal sums the one whose label comes first wins: order is stable, so a run begins with its first.
    keys = sums * count + (count - 1 - order.ravel()[runs])
    best = np.maximum.reduceat(keys, np.flatnonzero(runs % count == 0))
    result[mixed] = cells[np.arange(len(cells)), count - 1 - best % count]
    return result
