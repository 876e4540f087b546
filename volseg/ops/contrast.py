"""Contrast of an image: the grey values drawn black and white."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PERCENTILES = (0.5, 99.5)


def grey_range(values: NDArray[Any]) -> tuple[float, float] | None:
    """Return the grey values to draw black and white, at two percentiles; None if the image has no contrast.

    Voxels that are exactly 0 (the fill around an aligned volume) or not finite are ignored. The values are integers for
    an image of integers.

    >>> grey_range(np.arange(1, 1002, dtype=np.uint16)), grey_range(np.zeros((2, 2)))
    ((6, 996), None)
    """
    imaged = values[np.isfinite(values) & (values != 0)]
    if not imaged.size:
        return None
    low, high = np.percentile(imaged, _PERCENTILES)
    if np.issubdtype(values.dtype, np.integer):
        low, high = int(low), int(np.ceil(high))
        return (low, high) if low < high else None
    return (float(low), float(high)) if low < high else None
