"""A volume at another voxel size, section by section, so that memory does not grow with its depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from volseg.ops.resample import Taps, resample_axis, resample_mode, rounded

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Sections(Protocol):
    """Sections (y, x) of a source by their number; numbers ascend."""

    def __getitem__(self, number: int) -> NDArray[Any]: ...

    def forget(self, below: int) -> None:
        """Let sections below a number go."""


class ArraySections:
    """Sections of an array.

    Args:
        values: (z, y, x).
        first: number of its first section.
    """

    def __init__(self, values: NDArray[Any], first: int) -> None:
        self._values, self._first = values, first

    def __getitem__(self, number: int) -> NDArray[Any]:
        """A section (y, x)."""
        section: NDArray[Any] = self._values[number - self._first]
        return section

    def forget(self, below: int) -> None:
        """Do nothing."""


def resample_means(sections: Sections, taps: tuple[Taps, Taps, Taps], result: NDArray[Any]) -> None:
    """Write means, a section at a time."""
    along_z, along_y, along_x = taps
    low_y, low_x = along_y.span[0], along_x.span[0]
    area = along_y.total[:, None] * along_x.total.astype(np.float64)
    starts = along_z.first.tolist()
    sums: dict[int, NDArray[np.float64]] = {}
    for into, first, following, weights in zip(result, starts, [*starts[1:], None], along_z.weights, strict=True):
        sections.forget(first)
        total = np.zeros(area.shape)
        for z in range(first, first + int(np.count_nonzero(weights))):
            plane = sums.pop(z, None)
            if plane is None:
                section = resample_axis(_finite(sections[z]), along_y, 0, low_y)
                plane = resample_axis(section, along_x, 1, low_x)
            if following is not None and z >= following:
                sums[z] = plane
            total += plane * float(weights[z - first])
        into[:] = rounded(total / (area * float(weights.sum())), result.dtype.name)


def _finite(section: NDArray[Any]) -> NDArray[Any]:
    """A section with NaN for infinity, so that what touches it is NaN whatever the order of sums."""
    if section.dtype.kind != "f" or np.isfinite(section).all():
        return section
    return np.where(np.isfinite(section), section, section.dtype.type(np.nan))


def resample_modes(sections: Sections, taps: tuple[Taps, Taps, Taps], result: NDArray[Any]) -> None:
    """Write most frequent labels, a section at a time."""
    along_z, along_y, along_x = taps
    low_y, low_x = along_y.span[0], along_x.span[0]
    for number, (into, first) in enumerate(zip(result, along_z.first.tolist(), strict=True)):
        sections.forget(first)
        one = Taps(along_z.first[number : number + 1], along_z.weights[number : number + 1])
        labels = np.stack([sections[z] for z in range(*one.span)])
        into[:] = resample_mode(labels, (one, along_y, along_x), (first, low_y, low_x))[0]
