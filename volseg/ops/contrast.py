"""The grey values that are drawn black and white."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def grey_range(values: NDArray[Any]) -> tuple[float, float] | None:
    """The percentiles between which an image is drawn; None where it has no contrast.

    Voxels that are exactly 0 (the fill around an aligned volume) or not finite do not count. Whole numbers for
    whole numbers.

    >>> grey_range(np.arange(1, 1002, dtype=np.uint16)), grey_range(np.zeros((2, 2)))
    ((6, 996), None)
    """
    imaged = values[np.isfinite(values) & (values != 0)]
    if not imaged.size:
        return None
    low, high = np.percentile(imaged, _CUT)
    if np.issubdtype(values.dtype, np.integer):
        low, high = int(low), int(np.ceil(high))
        return (low, high) if low < high else None
    return (float(low), float(high)) if low < high else None


_CUT = (0.5, 99.5)
