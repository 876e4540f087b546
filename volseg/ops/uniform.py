"""Boxes that hold a single value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def is_constant(raw: NDArray[Any]) -> bool:
    """Whether all voxels of (z, y, x) hold one value, or NaN; most other blocks are decided by their first section.

    >>> is_constant(np.full((2, 3, 3), 7)), is_constant(np.arange(18).reshape(2, 3, 3))
    (True, False)
    """
    value = raw[0, 0, 0]
    if value != value:  # NaN
        return bool(np.isnan(raw).all())
    return all(bool((section == value).all()) for section in raw)
