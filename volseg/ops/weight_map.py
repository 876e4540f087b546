"""U-Net's weight map of the loss, which emphasises thin borders between cells."""

from __future__ import annotations

from math import ceil, log, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEGLIGIBLE = 1e-6
"""Error allowed in the border term by ignoring cells that are far away."""


def weight_map(ids: NDArray[Any], *, w0: float = 10.0, sigma: float = 5.0) -> NDArray[np.float32]:
    """Return the weight of each voxel: w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)).

    Equation 2 of Ronneberger et al. 2015 (arXiv 1505.04597). d1 and d2 are the distances to the nearest and the
    second-nearest cell, in voxels from centre to centre, 0 within a cell; a section of one cell has no such term.
    w_c = n / (2 n_c), with n_c of the n known voxels in the voxel's class (cell or membrane): both classes have the
    same total weight, and the mean is 1. In a section of one class, w_c is 1.

    Args:
        ids: cell ids from 1 on, (y, x); 0 is membrane, negative is unknown.
        w0: weight of the border term.
        sigma: width of the border term, in voxels.

    Returns:
        Weights (y, x), 0 where the id is unknown.

    >>> weight_map(np.array([[1, 0, 0, -1]])).round(2).tolist()
    [[1.5, 0.75, 0.75, 0.0]]
    """
    nearest, second = _two_distances(ids, _reach(w0, sigma))
    border = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    return np.where(ids < 0, 0, _class_weights(ids) + border).astype(np.float32)


def _class_weights(ids: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weight w_c of each voxel's class."""
    cells, membrane = np.count_nonzero(ids > 0), np.count_nonzero(ids == 0)
    if not cells or not membrane:
        return np.ones(ids.shape)
    known = cells + membrane
    return np.where(ids > 0, known / (2 * cells), known / (2 * membrane))


def _reach(w0: float, sigma: float) -> int:
    """Return the distance in voxels beyond which the border term is negligible."""
    return ceil(sigma * sqrt(2 * log(max(w0 / _NEGLIGIBLE, 1))))


def _two_distances(ids: NDArray[Any], reach: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distances from each voxel to the nearest and second-nearest cell; too large beyond the reach.

    One distance transform per cell, in its bounding box extended by the reach.
    """
    cells = np.unique(ids[ids > 0])
    numbers = np.where(ids > 0, np.searchsorted(cells, ids) + 1, 0)
    nearest, second = np.full(ids.shape, np.inf), np.full(ids.shape, np.inf)
    for number, box in enumerate(find_objects(numbers), start=1):
        window = tuple(slice(max(side.start - reach, 0), side.stop + reach) for side in box)
        distance = distance_transform_edt(numbers[window] != number)
        second[window] = np.minimum(second[window], np.maximum(nearest[window], distance))
        nearest[window] = np.minimum(nearest[window], distance)
    return nearest, second
