"""Patches: what the network sees in one go, drawn by number from the labelled volumes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from volseg.blocks import Box, mirror_span
from volseg.errors import TrainingError
from volseg.ops import normalize, reflect_gather
from volseg.training.data.sample import IGNORED
from volseg.training.data.volumes import refuse_not_finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volseg.blocks import Footprint, Zyx
    from volseg.training.data.statistics import TrainingStatistics
    from volseg.training.data.volumes import LabelledVolume
    from volseg.training.data.weight_maps import WeightMaps

    Voxel = TypeVar("Voxel", bound=np.generic)

_AXES = ("sections", "rows", "columns")
_DRAWS = 20
_OVERHANG = 4


class Patch(NamedTuple):
    """One patch, all of what the network sees, axes (z, y, x); the parts are those of `Sample`."""

    raw: NDArray[np.float32]
    labels: NDArray[np.int32]
    weights: NDArray[np.float32] | None
    seed: int


class _Place(NamedTuple):
    """Where a patch is: the number of its volume, that of a training range there, and the box that is scored."""

    volume: int
    range: int
    scored: Box


def geometry(footprint: Footprint, patch: Zyx) -> tuple[Zyx, Zyx]:
    """What a network sees for a patch, and what of it is scored, in voxels along (z, y, x).

    Args:
        footprint: the network's.
        patch: `patches.size`, what is to be scored. A 2-D network scores one section, and may see its neighbours; an
            unpadded one scores the next larger size that it makes.

    Raises:
        TrainingError: a patch that the network cannot take.
    """
    if footprint.dimensions == 2 and patch[0] != 1:
        raise TrainingError(
            f"patches.size {list(patch)} has {patch[0]} sections, and this 2-D network scores one; "
            f"use {[1, *patch[1:]]}"
        )
    off = [not margin and side % stride for side, stride, margin in _sides(footprint, patch)]
    if any(off):
        fitting = [side if margin else -(-side // stride) * stride for side, stride, margin in _sides(footprint, patch)]
        raise TrainingError(
            f"patches.size {list(patch)} is off the network's stride {list(footprint.stride)} along its "
            f"{' and '.join(axis for axis, bad in zip(_AXES, off, strict=True) if bad)}; use {fitting}"
        )
    seen = footprint.input_shape(patch, footprint.margin)
    z, y, x = (side - 2 * margin for side, margin in zip(seen, footprint.margin, strict=True))
    return seen, (z, y, x)


def _sides(footprint: Footprint, patch: Zyx) -> list[tuple[int, int, int]]:
    return list(zip(patch, footprint.stride, footprint.margin, strict=True))


@dataclass(frozen=True)
class Patches:
    """The patches of a training; `patches[n]` is number n, whichever process asks and whatever it asked before.

    Places are uniform over the training sections. A patch may overhang its section by a quarter of its side along y
    and x, so that voxels near the edge are learned nearly as often as others; along z it ends with its range, and what
    the network sees beyond is mirrored there. A patch of which nothing is known is drawn again.

    Attributes:
        volumes: what to draw from.
        statistics: constants of their grey values.
        seen: what the network sees, voxels along (z, y, x).
        scored: what of it is scored, in its middle.
        seed: of the training.
        maps: weight maps of each volume; without any, patches have no weights.
    """

    volumes: tuple[LabelledVolume, ...]
    statistics: TrainingStatistics
    seen: Zyx
    scored: Zyx
    seed: int
    maps: tuple[WeightMaps, ...] = ()

    def __getitem__(self, number: int) -> Patch:
        """Cut a patch.

        Raises:
            SourceError: voxels that cannot be read.
            TrainingError: grey values that are not finite.
        """
        chance = np.random.default_rng([self.seed, number])
        seed = int(chance.integers(2**63 - 1))
        place, labels = self._known_place(chance)
        volume, (first, stop) = self.volumes[place.volume], self.volumes[place.volume].train[place.range]
        box = place.scored.grown(self._margin)
        grey = _within(volume.raw.read, box, first, stop)
        refuse_not_finite(grey, volume.raw.location, box.start[0])
        raw = normalize(grey, self.statistics.of_ranges[place.volume][place.range], box.start[0] - first)
        weights = _within(self.maps[place.volume].read, box, first, stop) if self.maps else None
        return Patch(raw, labels, weights, seed)

    @property
    def _margin(self) -> Zyx:
        z, y, x = ((a - b) // 2 for a, b in zip(self.seen, self.scored, strict=True))
        return z, y, x

    def _known_place(self, chance: np.random.Generator) -> tuple[_Place, NDArray[np.int32]]:
        """A place of which something is known, if twenty draws find one, and the labels that are seen there."""
        inner = tuple(slice(m, m + side) for m, side in zip(self._margin, self.scored, strict=True))
        place, labels = self._labelled_place(chance)
        for _ in range(_DRAWS - 1):
            if (labels[inner] != IGNORED).any():
                break
            place, labels = self._labelled_place(chance)
        return place, labels

    def _labelled_place(self, chance: np.random.Generator) -> tuple[_Place, NDArray[np.int32]]:
        place = self._place(chance)
        volume = self.volumes[place.volume]
        return place, _within(volume.read_labels, place.scored.grown(self._margin), *volume.train[place.range])

    @cached_property
    def _bounds(self) -> tuple[tuple[tuple[int, int], float], ...]:
        """(volume, range) and how often it is drawn up to there, as a share of 1."""
        sizes = [
            ((owner, place), volume.weight * (stop - first) * volume.shape[1] * volume.shape[2])
            for owner, volume in enumerate(self.volumes)
            for place, (first, stop) in enumerate(volume.train)
        ]
        sums = np.cumsum([size for _, size in sizes])
        return tuple((which, float(total / sums[-1])) for (which, _), total in zip(sizes, sums, strict=True))

    def _place(self, chance: np.random.Generator) -> _Place:
        share = chance.random()
        owner, place = next(which for which, bound in self._bounds if share < bound)
        volume = self.volumes[owner]
        first, stop = volume.train[place]
        z = first + int(chance.integers(max(stop - first - self.scored[0], 0) + 1))
        y, x = (_start(chance, side, n) for side, n in zip(self.scored[1:], volume.shape[1:], strict=True))
        return _Place(owner, place, Box((z, y, x), (z + self.scored[0], y + self.scored[1], x + self.scored[2])))


def _start(chance: np.random.Generator, side: int, length: int) -> int:
    """Where a patch begins along y or x."""
    overhang = side // _OVERHANG
    return int(chance.integers(-overhang, max(length - side, 0) + overhang + 1))


def _within(read: Callable[[Box], NDArray[Voxel]], box: Box, first: int, stop: int) -> NDArray[Voxel]:
    """Read a box of sections [first, stop) alone, mirrored at the ends of the range."""
    start, behind = box.start[0] - first, box.stop[0] - first
    low, high = mirror_span(start, behind, stop - first)
    held = read(Box((first + low, *box.start[1:]), (first + high, *box.stop[1:])))
    rows, columns = held.shape[1:]
    read_reflected: Any = reflect_gather(
        held, (low, 0, 0), (start, 0, 0), (behind, rows, columns), (stop - first, rows, columns)
    )
    return read_reflected  # type: ignore[no-any-return]
