"""Patches: training samples drawn by index from the labelled volumes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from volseg.blocks import Box, mirror_span
from volseg.errors import ConfigError
from volseg.ops import normalize, reflect_gather
from volseg.training.data.sample import IGNORED
from volseg.training.data.volumes import refuse_non_finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volseg.blocks import Footprint, Zyx
    from volseg.training.data.statistics import TrainingStatistics
    from volseg.training.data.volumes import LabelledVolume
    from volseg.training.data.weight_maps import WeightMaps

    Voxel = TypeVar("Voxel", bound=np.generic)

_AXES = ("sections", "rows", "columns")
_MAX_DRAWS = 20
_OVERHANG_DIVISOR = 4


class Patch(NamedTuple):
    """One patch at the size of the network's input, axes (z, y, x); the fields are those of `Sample`."""

    raw: NDArray[np.float32]
    labels: NDArray[np.int32]
    weights: NDArray[np.float32] | None
    seed: int


class _Location(NamedTuple):
    """Position of a patch: index of the volume, index of the training range in it, and the box of its output."""

    volume: int
    range: int
    box: Box


def patch_shapes(footprint: Footprint, size: Zyx) -> tuple[Zyx, Zyx]:
    """Compute the input and output shape of a network for a patch size; voxels (z, y, x).

    Args:
        footprint: of the network.
        size: `patches.size`, the part that enters the loss. A 2-D network has an output of one section but may see
            its neighbours; for an unpadded network the output is rounded up to the next possible size.

    Raises:
        ConfigError: the network does not support this size.
    """
    if footprint.dimensions == 2 and size[0] != 1:
        raise ConfigError(
            f"patches.size {list(size)} has {size[0]} sections, but the output of this 2-D network has one; "
            f"use {[1, *size[1:]]}"
        )
    sides = list(zip(size, footprint.stride, footprint.margin, strict=True))
    misaligned = [not margin and side % stride for side, stride, margin in sides]
    if any(misaligned):
        aligned = [side if margin else -(-side // stride) * stride for side, stride, margin in sides]
        axes = " and ".join(axis for axis, bad in zip(_AXES, misaligned, strict=True) if bad)
        raise ConfigError(
            f"patches.size {list(size)} is not a multiple of the network's stride {list(footprint.stride)} along its "
            f"{axes}; use {aligned}"
        )
    input_shape = footprint.input_shape(size, footprint.margin)
    z, y, x = (side - 2 * margin for side, margin in zip(input_shape, footprint.margin, strict=True))
    return input_shape, (z, y, x)


@dataclass(frozen=True)
class PatchDataset:
    """A map-style dataset of patches; an index gives the same patch in any process and order.

    Locations are uniform over the training sections. Along y and x a patch may extend beyond its section by a quarter
    of its side, so that voxels near the edge are seen nearly as often as others; along z it ends with its range.
    Voxels beyond are mirrored. A patch without labelled voxels is drawn again.

    Attributes:
        volumes: to draw from.
        statistics: constants of their grey values.
        input_shape: of the network, voxels (z, y, x).
        output_shape: of the network, centred in the input.
        seed: of the training.
        weight_maps: one per volume; if empty, patches have no weights.
    """

    volumes: tuple[LabelledVolume, ...]
    statistics: TrainingStatistics
    input_shape: Zyx
    output_shape: Zyx
    seed: int
    weight_maps: tuple[WeightMaps, ...] = ()

    def __getitem__(self, index: int) -> Patch:
        """Read a patch.

        Raises:
            SourceError: voxels cannot be read.
            TrainingError: grey values are NaN or infinite.
        """
        rng = np.random.default_rng([self.seed, index])
        seed = int(rng.integers(2**63 - 1))
        location, labels = self._labelled_location(rng)
        volume, (first, stop) = self.volumes[location.volume], self.volumes[location.volume].train[location.range]
        box = location.box.grow(self._margin)
        grey = _read_range(volume.raw.read, box, first, stop)
        refuse_non_finite(grey, volume.raw.location, box.start[0])
        raw = normalize(grey, self.statistics.by_range[location.volume][location.range], box.start[0] - first)
        weights = None
        if self.weight_maps:
            weights = _read_range(self.weight_maps[location.volume].read, box, first, stop)
        return Patch(raw, labels, weights, seed)

    @property
    def _margin(self) -> Zyx:
        z, y, x = ((a - b) // 2 for a, b in zip(self.input_shape, self.output_shape, strict=True))
        return z, y, x

    def _labelled_location(self, rng: np.random.Generator) -> tuple[_Location, NDArray[np.int32]]:
        """Draw a location with labelled voxels in its output, in at most twenty draws; also returns its labels."""
        center = tuple(slice(m, m + side) for m, side in zip(self._margin, self.output_shape, strict=True))
        location, labels = self._draw(rng)
        for _ in range(_MAX_DRAWS - 1):
            if (labels[center] != IGNORED).any():
                break
            location, labels = self._draw(rng)
        return location, labels

    def _draw(self, rng: np.random.Generator) -> tuple[_Location, NDArray[np.int32]]:
        location = self._random_location(rng)
        volume = self.volumes[location.volume]
        return location, _read_range(volume.read_labels, location.box.grow(self._margin), *volume.train[location.range])

    @cached_property
    def _cumulative_fractions(self) -> tuple[tuple[tuple[int, int], float], ...]:
        """Each (volume, range) with the fraction of patches that are drawn up to and including it."""
        sizes = [
            ((v, r), volume.weight * (stop - first) * volume.shape[1] * volume.shape[2])
            for v, volume in enumerate(self.volumes)
            for r, (first, stop) in enumerate(volume.train)
        ]
        sums = np.cumsum([size for _, size in sizes])
        return tuple((key, float(total / sums[-1])) for (key, _), total in zip(sizes, sums, strict=True))

    def _random_location(self, rng: np.random.Generator) -> _Location:
        fraction = rng.random()
        v, r = next(key for key, upper in self._cumulative_fractions if fraction < upper)
        volume = self.volumes[v]
        first, stop = volume.train[r]
        z = first + int(rng.integers(max(stop - first - self.output_shape[0], 0) + 1))
        y, x = (_random_start(rng, side, n) for side, n in zip(self.output_shape[1:], volume.shape[1:], strict=True))
        depth, height, width = self.output_shape
        return _Location(v, r, Box((z, y, x), (z + depth, y + height, x + width)))


def _random_start(rng: np.random.Generator, side: int, length: int) -> int:
    """Draw the start of a patch along y or x."""
    overhang = side // _OVERHANG_DIVISOR
    return int(rng.integers(-overhang, max(length - side, 0) + overhang + 1))


def _read_range(read: Callable[[Box], NDArray[Voxel]], box: Box, first: int, stop: int) -> NDArray[Voxel]:
    """Read a box from sections [first, stop) only, mirrored at the ends of the range."""
    start, end = box.start[0] - first, box.stop[0] - first
    low, high = mirror_span(start, end, stop - first)
    stored = read(Box((first + low, *box.start[1:]), (first + high, *box.stop[1:])))
    rows, columns = stored.shape[1:]
    mirrored: Any = reflect_gather(
        stored, (low, 0, 0), (start, 0, 0), (end, rows, columns), (stop - first, rows, columns)
    )
    return mirrored  # type: ignore[no-any-return]
