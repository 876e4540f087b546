"""Probabilities as bytes, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def to_uint8(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Map probabilities in [0, 1] to 0..255, rounding to nearest; same shape.

    Values outside [0, 1] are clipped. The caller sees to it that none is NaN.

    >>> to_uint8(np.float32([0, 0.5, 1, 1.5])).tolist()
    [0, 128, 255, 255]
    """
    stored: NDArray[np.uint8] = np.rint(np.clip(probability, 0, 1) * np.float32(255)).astype(np.uint8)
    return stored


def to_probability(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Map bytes back to probabilities; off by at most half a step from what was stored.

    >>> to_probability(np.uint8([0, 51, 255])).round(3).tolist()
    [0.0, 0.20000000298023224, 1.0]
    """
    return stored.astype(np.float32) / np.float32(255)
