"""Halve volumes along some axes: by the mean of voxels, or by the most frequent of them for labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def downsample_mean(voxels: NDArray[Any], factors: Sequence[int]) -> NDArray[Any]:
    """Average voxels; a last one without a partner counts alone.

    Whole numbers are rounded to the nearest, and halves to even ones, so that no level is brighter than the finer one.

    Args:
        voxels: whole numbers of at most 32 bits, or floats.
        factors: 1 or 2 for each axis.

    Returns:
        The same type.

    >>> downsample_mean(np.array([[0, 1, 3], [1, 1, 4]], np.uint8), (1, 2))
    array([[0, 3],
           [1, 4]], dtype=uint8)
    """
    _refuse_factors(voxels, factors)
    axes = [axis for axis, factor in enumerate(factors) if factor == 2]
    if not axes:
        return voxels
    whole = voxels.dtype.kind in "iu"
    if voxels.dtype.kind not in "iuf" or (whole and voxels.itemsize > 4):
        raise TypeError(f"{voxels.dtype} is a type of labels, which have no mean; take downsample_mode")
    wide = np.dtype(f"{voxels.dtype.kind}{2 * voxels.itemsize}") if whole else np.dtype(np.float64)
    total = voxels
    for axis in axes:
        total = _add_pairs(total, axis, wide)
    if not whole:
        total = total / 2 ** len(axes)
    else:
        bits = len(axes)
        odd = (total >> bits) & 1
        total += odd
        total += (1 << (bits - 1)) - 1
        total >>= bits
    mean: NDArray[Any] = total.astype(voxels.dtype)
    return mean


def _add_pairs(values: NDArray[Any], axis: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Sums of neighbours along an axis, in a wider type; a last one without a partner is doubled."""
    total: NDArray[Any] = np.add(*_halves(values, axis), dtype=dtype)
    return total


def _every_second(values: NDArray[Any], axis: int, start: int) -> NDArray[Any]:
    index = [slice(None)] * values.ndim
    index[axis] = slice(start, None, 2)
    return values[tuple(index)]


def downsample_mode(labels: NDArray[Any], factors: Sequence[int]) -> NDArray[Any]:
    """Take the most frequent label of each cell; the first in C order of several that are.

    Args:
        labels: of any type.
        factors: 1 or 2 for each axis.

    >>> downsample_mode(np.array([[5, 7, 7], [7, 7, 9]]), (2, 2))
    array([[7, 7]])
    """
    _refuse_factors(labels, factors)
    axes = [axis for axis, factor in enumerate(factors) if factor == 2]
    parts = [labels]
    for axis in axes:  # later axes vary fastest
        parts = [half for part in parts for half in _halves(part, axis)]
    best, votes = parts[0], _votes(parts, 0)
    for at in range(1, len(parts)):
        counts = _votes(parts, at)
        better = counts > votes
        best, votes = np.where(better, parts[at], best), np.where(better, counts, votes)
    return best


def _halves(labels: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Even and odd ones along an axis; a last even one is its own partner."""
    first, second = (_every_second(labels, axis, start) for start in (0, 1))
    if first.shape != second.shape:
        last = [slice(None)] * labels.ndim
        last[axis] = slice(-1, None)
        second = np.concatenate([second, labels[tuple(last)]], axis=axis)
    return first, second


def _votes(parts: list[NDArray[Any]], at: int) -> NDArray[np.uint8]:
    """How many of a cell's labels equal that at a position of the cell."""
    votes = np.zeros(parts[at].shape, np.uint8)
    for part in parts:
        votes += part == parts[at]
    return votes


def _refuse_factors(voxels: NDArray[Any], factors: Sequence[int]) -> None:
    if len(factors) != voxels.ndim or not set(factors) <= {1, 2}:
        raise ValueError(f"factors {tuple(factors)} of an array with {voxels.ndim} axes are not 1 or 2 for each")
