"""How much each voxel of a section counts: U-Net's map, which makes thin borders matter."""

from __future__ import annotations

from math import ceil, log, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEGLIGIBLE = 1e-6
"""What the border term may lack where cells lie too far apart to be looked at."""


def weight_map(ids: NDArray[Any], *, w0: float = 10.0, sigma: float = 5.0) -> NDArray[np.float32]:
    """Weight of each voxel: w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)).

    Equation 2 of Ronneberger et al. 2015 (arXiv 1505.04597). d1 and d2 are the distances to the nearest and the
    second-nearest cell, in voxels from centre to centre, 0 within a cell; a section of one cell has no such term.
    w_c = n / (2 n_c), where n_c of the n known voxels are of the voxel's class (cell or membrane): both classes weigh
    the same in all, and the mean is 1. Where there is only one class, w_c is 1.

    Args:
        ids: cells from 1 on, one id each, (y, x); 0 is membrane, below 0 is unknown.
        w0: weight of the border term.
        sigma: its width, in voxels.

    Returns:
        Weights (y, x), 0 where nothing is known.

    >>> weight_map(np.array([[1, 0, 0, -1]])).round(2).tolist()
    [[1.5, 0.75, 0.75, 0.0]]
    """
    nearest, second = _two_distances(ids, _reach(w0, sigma))
    border = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    return np.where(ids < 0, 0, _balance(ids) + border).astype(np.float32)


def _balance(ids: NDArray[Any]) -> NDArray[np.float64]:
    """The weight w_c of each voxel's class."""
    cells, membrane = np.count_nonzero(ids > 0), np.count_nonzero(ids == 0)
    if not cells or not membrane:
        return np.ones(ids.shape)
    known = cells + membrane
    return np.where(ids > 0, known / (2 * cells), known / (2 * membrane))


def _reach(w0: float, sigma: float) -> int:
    """Distance in voxels beyond which the border term is negligible."""
    return ceil(sigma * sqrt(2 * log(max(w0 / _NEGLIGIBLE, 1))))


def _two_distances(ids: NDArray[Any], reach: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances from each voxel to the nearest and second-nearest cell; infinite or too large beyond the reach.

    One distance transform a cell, of its bounding box grown by the reach: all that a cell can colour.
    """
    cells = np.unique(ids[ids > 0])
    numbers = np.where(ids > 0, np.searchsorted(cells, ids) + 1, 0)
    nearest, second = np.full(ids.shape, np.inf), np.full(ids.shape, np.inf)
    for number, box in enumerate(find_objects(numbers), start=1):
        seen = tuple(slice(max(side.start - reach, 0), side.stop + reach) for side in box)
        distance = distance_transform_edt(numbers[seen] != number)
        second[seen] = np.minimum(second[seen], np.maximum(nearest[seen], distance))
        nearest[seen] = np.minimum(nearest[seen], distance)
    return nearest, second
