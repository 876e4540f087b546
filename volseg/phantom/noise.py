"""Smooth random fields of any shape, their scale given in nanometres."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Nm = tuple[float, float, float]

_SPLINE_POWER = 0.4794  # mean over the unit interval of the squared cubic B-spline weights


def smooth_noise(
    shape: tuple[int, int, int], step_nm: Nm, scale_nm: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Random field (z, y, x) of about zero mean and unit variance, smooth over `scale_nm`.

    A cubic B-spline through random lattice values: unlike filtered white noise its variance does
    not depend on the shape, and its cost not on the scale.

    >>> smooth_noise((2, 3, 4), (30, 6, 6), 100.0, np.random.default_rng(0)).shape
    (2, 3, 4)
    """
    places = [np.arange(n, dtype=np.float64) * step / scale_nm for n, step in zip(shape, step_nm, strict=True)]
    lattice = [int(place[-1]) + 4 for place in places]
    field = rng.standard_normal(lattice, dtype=np.float32)
    for axis, place in enumerate(places):
        field = _spline_along(field, place, axis)
    return field / np.float32(_SPLINE_POWER**1.5)


def _spline_along(field: NDArray[np.float32], place: NDArray[np.float64], axis: int) -> NDArray[np.float32]:
    """Sample `field` at fractional lattice positions `place` along one axis."""
    first = place.astype(np.intp)
    t = place - first
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    column = [-1 if a == axis else 1 for a in range(3)]
    # Four taps and plain sums, not a matrix product: BLAS may round differently with more threads.
    taps = (
        field.take(first + tap, axis) * (weight / 6).astype(np.float32).reshape(column)
        for tap, weight in enumerate(weights)
    )
    return np.asarray(functools.reduce(np.add, taps))
