"""Mirror padding of arrays in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import mirror_index, mirror_span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def reflect_gather(
    part: NDArray[Any], low: Sequence[int], start: Sequence[int], stop: Sequence[int], shape: Sequence[int]
) -> NDArray[Any]:
    """Gather the mirrored region [start, stop) of an array from the part of it that the region contains.

    Args:
        part: voxels [low, high) of the array, with `low` and `high` of `mirror_span` along each axis.
        low: start of `part` in the array.
        start: start of the region along each axis; may be negative.
        stop: stop of the region; may be beyond the array.
        shape: shape of the array.

    Returns:
        An array of shape stop - start.
    """
    result = part
    for axis, (origin, a, b, length) in enumerate(zip(low, start, stop, shape, strict=True)):
        if a < 0 or b > length:
            indices = [mirror_index(index, length) - origin for index in range(a, b)]
            result = np.take(result, indices, axis=axis)
    return result


def read_reflected(array: NDArray[Any], start: Sequence[int], stop: Sequence[int]) -> NDArray[Any]:
    """Read the region [start, stop) of an array that is mirrored beyond its edges.

    Equals `numpy.pad(mode="reflect")` followed by a crop, without creating the padded array.

    Args:
        array: any number of axes.
        start: start along each axis; may be negative.
        stop: stop along each axis; may be beyond the array.

    Returns:
        An array of shape stop - start; a view if the region is inside the array.

    >>> read_reflected(np.arange(3), [-4], [7]).tolist()
    [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    """
    spans = [mirror_span(a, b, n) for a, b, n in zip(start, stop, array.shape, strict=True)]
    part = array[tuple(slice(low, high) for low, high in spans)]
    return reflect_gather(part, [low for low, _ in spans], start, stop, array.shape)
