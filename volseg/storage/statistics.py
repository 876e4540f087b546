"""Statistics of a volume or its sections, computed before the first block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import Box

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from volseg.ops import Normalization, Statistics
    from volseg.storage.readers import Readable

_MAX_LENGTH = 1024
"""Axes up to this length are read completely."""
_WINDOWS = 8
_WINDOW = 128
_MAX_DEPTH = 64
"""Maximum number of sections in memory."""


def volume_statistics(
    volume: Readable, normalization: Normalization, on_section: Callable[[int], None] = lambda done: None
) -> Statistics:
    """Return the normalisation constants of a run: mean and standard deviation of training, volume or each section.

    Sections of up to 1024 x 1024 are read completely; of larger ones 8 windows of 128 voxels along each longer axis,
    evenly spaced, so that a petabyte takes minutes.

    Args:
        volume: the source.
        normalization: normalisation of the model.
        on_section: callback with the number of sections done so far.
    """
    if normalization.scope == "training":
        return (normalization.training,)
    sections: list[tuple[float, float, int]] = []
    for slab in sample_slabs(volume, 0, volume.shape[0]):
        sections += [normalization.moments(section) for section in slab]
        on_section(len(sections))
    if normalization.scope == "section":
        return tuple((mean, std or 1.0) for mean, std, _ in sections)
    return (pooled_moments(sections),)


def sample_slabs(volume: Readable, first: int, stop: int) -> Iterator[NDArray[Any]]:
    """Yield sections [first, stop) as (z, y, x) slabs of a few sections; of large sections, windows side by side.

    Slabs end at chunk borders, so that each chunk is decoded once.
    """
    depth = min(volume.chunk[0], _MAX_DEPTH)
    while first < stop:
        end = min((first // depth + 1) * depth, stop)
        yield _sample(volume, first, end)
        first = end


def pooled_moments(sections: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Pool (mean, standard deviation, voxel count) of sections into mean and standard deviation of all.

    >>> pooled_moments([(10.0, 0.0, 1), (20.0, 0.0, 1)])
    (15.0, 5.0)
    """
    mean, std, count = np.asarray(sections, np.float64).T
    if not count.any():
        return 0.0, 1.0
    weight = count / count.sum()
    total_mean = float((weight * mean).sum())
    variance = float((weight * (std**2 + (mean - total_mean) ** 2)).sum())
    return total_mean, variance**0.5 or 1.0


def _sample(volume: Readable, first: int, stop: int) -> NDArray[Any]:
    rows, columns = (_windows(length) for length in volume.shape[1:])
    return np.concatenate(
        [
            np.concatenate([volume.read(Box((first, y0, x0), (stop, y1, x1))) for x0, x1 in columns], axis=2)
            for y0, y1 in rows
        ],
        axis=1,
    )


def _windows(length: int) -> list[tuple[int, int]]:
    if length <= _MAX_LENGTH:
        return [(0, length)]
    starts = [(length - _WINDOW) * k // (_WINDOWS - 1) for k in range(_WINDOWS)]
    return [(start, start + _WINDOW) for start in starts]
