"""The mirror, for arrays that are in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import mirror_index, mirror_span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def reflect_gather(
    held: NDArray[Any], low: Sequence[int], start: Sequence[int], stop: Sequence[int], shape: Sequence[int]
) -> NDArray[Any]:
    """Mirror a stretch of a larger array out to the region [start, stop).

    Args:
        held: the voxels that the mirror shows in the region: those of `mirror_span` along each axis.
        low: where `held` starts in the larger array.
        start: first place of the region along each axis; may be negative.
        stop: place behind its last; may lie beyond the larger array.
        shape: the larger array's.
    """
    result = held
    for axis, (origin, first, behind, length) in enumerate(zip(low, start, stop, shape, strict=True)):
        if first < 0 or behind > length:
            places = [mirror_index(place, length) - origin for place in range(first, behind)]
            result = np.take(result, places, axis=axis)
    return result


def read_reflected(array: NDArray[Any], start: Sequence[int], stop: Sequence[int]) -> NDArray[Any]:
    """Read the half-open region [start, stop) of an array as if it went on, mirrored, for ever.

    Equals `numpy.pad(mode="reflect")` followed by a crop, without making the padded array.

    Args:
        array: any number of axes.
        start: first place along each axis; may be negative.
        stop: place behind the last; may lie beyond the array.

    Returns:
        An array of shape stop - start; a view where the region lies inside.

    >>> read_reflected(np.arange(3), [-4], [7]).tolist()
    [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    """
    spans = [mirror_span(a, b, n) for a, b, n in zip(start, stop, array.shape, strict=True)]
    held = array[tuple(slice(low, high) for low, high in spans)]
    return reflect_gather(held, [low for low, _ in spans], start, stop, array.shape)
