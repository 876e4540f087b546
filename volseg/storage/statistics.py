"""Statistics of a volume or its sections, computed once, before the first block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import Box
from volseg.ops.normalize import imaged_moments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from volseg.ops import Normalization, Statistics
    from volseg.storage.readers import Readable

_WHOLE = 1024
"""Axes up to this length are read whole."""
_WINDOWS = 8
_WINDOW = 128
_DEEPEST = 64
"""Sections that are held at once."""


def volume_statistics(
    volume: Readable, normalization: Normalization, on_section: Callable[[int], None] = lambda done: None
) -> Statistics:
    """The constants of a run: the training's, or mean and standard deviation of the volume or of each section.

    Sections of up to 1024 x 1024 count whole; of larger ones 8 windows of 128 voxels are read along each longer
    axis, evenly spread, so that a petabyte costs minutes.

    Args:
        volume: the source.
        normalization: the model's.
        on_section: told how many sections are done.
    """
    if normalization.mode == "fixed":
        return (normalization.training,)
    sections: list[tuple[float, float, int]] = []
    for slab in sampled_slabs(volume, 0, volume.shape[0]):
        sections += [imaged_moments(section) for section in slab]
        on_section(len(sections))
    if normalization.mode == "section":
        return tuple((mean, std or 1.0) for mean, std, _ in sections)
    return (pooled(sections),)


def sampled_slabs(volume: Readable, first: int, stop: int) -> Iterator[NDArray[Any]]:
    """Sections [first, stop), or windows of large ones side by side, as (z, y, x) slabs of a few sections.

    Slabs end where chunks do, so that each chunk is decoded once.
    """
    depth = min(volume.chunk[0], _DEEPEST)
    while first < stop:
        behind = min((first // depth + 1) * depth, stop)
        yield _sampled(volume, first, behind)
        first = behind


def pooled(sections: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Moments of all sections together, from each one's own and how many voxels count in it.

    >>> pooled([(10.0, 0.0, 1), (20.0, 0.0, 1)])
    (15.0, 5.0)
    """
    mean, std, count = np.asarray(sections, np.float64).T
    if not count.any():
        return 0.0, 1.0
    weight = count / count.sum()
    whole = float((weight * mean).sum())
    variance = float((weight * (std**2 + (mean - whole) ** 2)).sum())
    return whole, variance**0.5 or 1.0


def _sampled(volume: Readable, first: int, stop: int) -> NDArray[Any]:
    rows, columns = (_windows(length) for length in volume.shape[1:])
    return np.concatenate(
        [
            np.concatenate([volume.read(Box((first, y0, x0), (stop, y1, x1))) for x0, x1 in columns], axis=2)
            for y0, y1 in rows
        ],
        axis=1,
    )


def _windows(length: int) -> list[tuple[int, int]]:
    if length <= _WHOLE:
        return [(0, length)]
    starts = [(length - _WINDOW) * k // (_WINDOWS - 1) for k in range(_WINDOWS)]
    return [(start, start + _WINDOW) for start in starts]
