"""Whether a probability volume has seams: steps at the faces of blocks that stand out from those elsewhere.

    . . . o  face             A parabola through four voxels on either side says what the face should hold; the
            |       . .       difference of the two is the step. A block that saw too little around it, or was
            |  o .            normalised by its own voxels, steps at its faces and nowhere else.

A step counts by how far it exceeds the largest of its neighbours in the same row, so that edges of the tissue count for
little; the planes between the faces show what is usual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GROUP, _MOVING = 8, 3
"""Voxels along a plane that are summed, and how many of these sums are averaged: errors of blocks are smooth there."""
_STRETCH = 3
"""Groups side by side, at least, of a face of a block that was not computed; a cell is rarely 0 along so many."""
_ROUNDING = 0.5
"""Grey levels of steps that rounding to uint8 explains."""
_MAX_EXCESS = 2.0
"""Of one row."""
_CACHED = 1 << 18
"""Voxels that are measured at once."""
MIN_USUAL = 8
"""Planes that show what is usual."""


@dataclass(frozen=True, slots=True)
class _Kernel:
    """How a step is measured.

    Attributes:
        weights: of the differences of voxels at 1, 2, .. after and before a plane.
        gap: distance of the nearest plane that a step does not touch.
        compared: planes on each side that it is compared with.
    """

    weights: tuple[float, ...]
    gap: int
    compared: int

    @property
    def edge(self) -> int:
        """Planes at both ends that cannot be measured."""
        return len(self.weights) + self.gap + self.compared - 1


_IN_SECTION = _Kernel((123 / 123, -19 / 123, -51 / 123, 27 / 123), gap=4, compared=5)
"""The value half a voxel beyond four, by the parabola that fits them best."""
_ACROSS_SECTIONS = _Kernel((1.0,), gap=1, compared=2)
"""Sections are too far apart for a curve through them."""


def _kernel(axis: int) -> _Kernel:
    return _IN_SECTION if axis else _ACROSS_SECTIONS


@dataclass(frozen=True)
class PlaneSteps:
    """Steps of a window of a volume, from plane to plane along one axis.

    Attributes:
        axis: 0, 1, 2 for z, y, x.
        first: position in the volume of the window's first voxel along the axis.
        excess: by which steps between a position and the one before exceed their neighbours, mean over the plane, 0 to
            2; NaN near the window's ends.
    """

    axis: int
    first: int
    excess: NDArray[np.float64]


def reach_of_step(axis: int) -> int:
    """Distance of the nearest plane that a step at a face does not touch."""
    return _kernel(axis).gap


def min_extent(axis: int) -> int:
    """Voxels along an axis that a window needs at least."""
    return 2 * _kernel(axis).edge + MIN_USUAL


def grey_level(voxels: NDArray[Any]) -> float:
    """What one of 255 grey levels is in the type of a volume.

    >>> grey_level(np.uint8([3])), grey_level(np.uint16([3])), round(grey_level(np.float32([0.5])), 4)
    (1.0, 257.0, 0.0039)
    """
    if voxels.dtype.kind in "iu":
        return float(np.iinfo(voxels.dtype).max) / 255
    largest = float(np.nanmax(voxels, initial=0.0))
    return max(largest, 1.0) / 255


def plane_steps(voxels: NDArray[Any], axis: int, first: int = 0, level: float = 1.0) -> PlaneSteps:
    """Measure the steps of a window.

    Args:
        voxels: (z, y, x), probabilities of any type.
        axis: across which planes lie.
        first: position of the window along the axis, in the volume.
        level: one grey level.
    """
    kernel, length, along = _kernel(axis), voxels.shape[axis], 1 if axis == 2 else 2
    excess = np.full(length, np.nan)
    if length < min_extent(axis) or voxels.shape[along] < _GROUP * _MOVING or not voxels.size:
        return PlaneSteps(axis, first, excess)
    images = _images(voxels, axis)
    total = np.zeros(length - 2 * kernel.edge + 1)
    for image in images:
        groups = _grouped(image)
        lonely = _lonely(groups, kernel.edge)
        total += _excess(_averaged(groups), lonely, kernel, _ROUNDING * level)
    excess[kernel.edge : length - kernel.edge + 1] = total / len(images)
    return PlaneSteps(axis, first, excess)


def _images(voxels: NDArray[Any], axis: int) -> list[NDArray[Any]]:
    """The planes of a window as rows of images (planes, along), each small enough for the processor's cache."""
    if axis:
        return [section if axis == 1 else section.T for section in voxels]
    flat = voxels.reshape(len(voxels), -1)
    parts = max(voxels.size // _CACHED, 1)
    return np.array_split(flat, min(parts, flat.shape[1] // (_GROUP * _MOVING)), axis=1)


def _grouped(image: NDArray[Any]) -> NDArray[Any]:
    """Sums of a few voxels along the planes of an image (planes, along)."""
    count = image.shape[1] // _GROUP
    wide = np.uint16 if image.dtype == np.uint8 else np.float32
    groups: NDArray[Any] = image[:, : count * _GROUP : _GROUP].astype(wide)
    for k in range(1, _GROUP):
        groups += image[:, k : count * _GROUP : _GROUP].astype(wide, copy=False)
    if groups.dtype == np.float32:
        np.nan_to_num(groups, copy=False, posinf=0.0, neginf=0.0)
    return groups


def _averaged(groups: NDArray[Any]) -> NDArray[np.float32]:
    """Means of some neighbouring groups."""
    means = groups[:, _MOVING - 1 :].astype(np.float32)
    for k in range(_MOVING - 1):
        means += groups[:, k : k + means.shape[1]]
    means *= np.float32(1 / (_GROUP * _MOVING))
    return means


def _lonely(groups: NDArray[Any], depth: int) -> NDArray[np.bool_]:
    """Where there are nothing but zeros on one side of a plane: a block that was not computed, or no tissue."""
    zero = _moving(np.logical_and, groups == 0, depth)
    stretches = _moving(np.logical_and, (zero[:-depth] ^ zero[depth:]).T, _STRETCH)
    # All of such a stretch, and beside its ends too, which may lie within a group.
    wide = np.pad(stretches, ((_STRETCH, _STRETCH), (0, 0)))
    return _moving(np.logical_or, wide, _STRETCH + _MOVING + 1).T


def _excess(
    image: NDArray[np.float32], lonely: NDArray[np.bool_], kernel: _Kernel, rounding: float
) -> NDArray[np.float64]:
    """Excess of each plane that can be measured, mean along it; that of lonely places is none."""
    half, length = len(kernel.weights), image.shape[0]
    planes = length - 2 * half + 1
    step = image[half : half + planes] - image[half - 1 : half - 1 + planes]
    for k, weight in enumerate(kernel.weights[1:], start=1):
        difference = image[half + k : half + k + planes] - image[half - 1 - k : half - 1 - k + planes]
        difference *= np.float32(weight)
        step += difference
    np.abs(step, out=step)
    reach, largest = kernel.gap + kernel.compared - 1, _moving_maximum(step, kernel.compared)
    measured = planes - 2 * reach
    behind = reach + kernel.gap
    others = np.maximum(largest[:measured], largest[behind : behind + measured])
    excess = step[reach : reach + measured] - others
    others += np.float32(rounding)
    excess /= others
    np.maximum(excess, np.float32(0), out=excess)
    np.minimum(excess, np.float32(_MAX_EXCESS), out=excess)
    excess[lonely] = 0
    width = excess.shape[1]
    mean: NDArray[np.float64] = (excess @ np.full(width, 1 / width, np.float32)).astype(np.float64)
    return mean


def _moving_maximum(values: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Maximum of `width` values from each on, along the first axis.

    >>> _moving_maximum(np.float32([[3], [1], [4], [1], [5]]), 3).ravel().tolist()
    [4.0, 4.0, 5.0]
    """
    return _moving(np.maximum, values, width)


def _moving(combine: np.ufunc, values: NDArray[Any], width: int) -> NDArray[Any]:
    done = 1
    while done < width:
        step = min(done, width - done)
        values = combine(values[:-step], values[step:])
        done += step
    return values
