"""Normalisation that a few very bright or dark voxels do not change."""

import numpy as np
from numpy.typing import NDArray

from volseg.ops.normalize import NormalizationMode


def median_and_deviation(values: NDArray[np.float64]) -> tuple[float, float]:
    """Median and median absolute deviation, the latter scaled to a standard deviation."""
    median = np.median(values)
    return float(median), float(1.4826 * np.median(np.abs(values - median)))


ROBUST = NormalizationMode(median_and_deviation)
