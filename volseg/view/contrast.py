"""The grey values that are drawn black and white."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import Box, Zyx
from volseg.errors import SourceError
from volseg.storage import open_volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_WINDOW = (1, 1024, 1024)
_CUT = (0.5, 99.5)


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


def sampled_grey_range(array: Path, shape: Zyx, channel: int | None = None) -> tuple[float, float] | None:
    """The same for a volume on disk, from a window in the section that is shown first; None where it cannot be read."""
    z, y, x = (max(n // 2 - w // 2, 0) for n, w in zip(shape, _WINDOW, strict=True))
    window = Box((z, y, x), (z + _WINDOW[0], y + _WINDOW[1], x + _WINDOW[2])).intersection(Box.of_shape(shape))
    try:
        return grey_range(open_volume(str(array), channel=channel).read(window))
    except SourceError:
        return None  # a codec that only Neuroglancer reads, or a damaged chunk: contrast can be set by hand
