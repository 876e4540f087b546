"""Labelled volumes: opened, checked before the first step, and read a box at a time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from volseg.blocks import Box
from volseg.errors import TrainingError
from volseg.storage import GREY, LABELS, open_readable
from volseg.training.data.labels import LabelMeaning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from volseg.blocks import Zyx, ZyxFloat
    from volseg.config.train_tables import DataSettings, TargetSettings
    from volseg.storage import Readable

_ALIKE = 0.01
"""Voxel sizes that differ by no more are one size."""

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Sections [first, stop), several times."""


@dataclass(frozen=True)
class LabelledVolume:
    """Grey values and what they show, axes (z, y, x); voxels stay where they are stored until they are read.

    Attributes:
        raw: grey values.
        labels: as they are stored.
        meaning: what stored labels mean.
        voxel_nm: voxel size (z, y, x) in nanometres.
        train: sections to learn from.
        validation: sections to score.
        weight: how often patches are drawn, relative to the volume's size.
    """

    raw: Readable
    labels: Readable
    meaning: LabelMeaning
    voxel_nm: ZyxFloat
    train: Ranges
    validation: Ranges = ()
    weight: float = 1.0

    @property
    def shape(self) -> Zyx:
        """Voxels along z, y, x."""
        return self.raw.shape

    def read_labels(self, box: Box) -> NDArray[np.int32]:
        """Labels of a box in the meaning of `Sample.labels`, mirrored where it leaves the volume."""
        return self.meaning.read(self.labels, box)

    def section_box(self, first: int, stop: int) -> Box:
        """The box of whole sections [first, stop)."""
        return Box((first, 0, 0), (stop, *self.shape[1:]))

    def held_out(self) -> tuple[HeldOut, ...]:
        """The validation sections, a range at a time, in memory.

        Raises:
            SourceError: voxels that cannot be read.
            TrainingError: grey values that are not finite.
        """
        return tuple(self._held_out(first, stop) for first, stop in self.validation)

    def _held_out(self, first: int, stop: int) -> HeldOut:
        box = self.section_box(first, stop)
        raw = self.raw.read(box)
        refuse_not_finite(raw, self.raw.location, first)
        cells = np.stack([self.meaning.cells(self.labels, z) for z in range(first, stop)])
        return HeldOut(raw, self.read_labels(box), cells, self.voxel_nm)


@dataclass(frozen=True)
class HeldOut:
    """Neighbouring sections that no patch shows, axes (z, y, x).

    Attributes:
        raw: grey values, in their own type.
        labels: int32, in the meaning of `Sample.labels`.
        truth_ids: int32; the cells of each section told apart, 0 on membrane, -1 where nothing is known.
        voxel_nm: voxel size (z, y, x) in nanometres.
    """

    raw: NDArray[Any]
    labels: NDArray[np.int32]
    truth_ids: NDArray[np.int32]
    voxel_nm: ZyxFloat


def open_volumes(tables: Sequence[DataSettings], target: TargetSettings) -> tuple[LabelledVolume, ...]:
    """Open all volumes of a training.

    Raises:
        SourceError: a volume that cannot be read.
        TrainingError: as `open_labelled`; voxels of different sizes; one table's validation sections among another's
            training sections.
    """
    volumes = tuple(open_labelled(table, target) for table in tables)
    for one, other in combinations(volumes, 2):
        if any(abs(a - b) > _ALIKE * max(a, b) for a, b in zip(one.voxel_nm, other.voxel_nm, strict=True)):
            raise TrainingError(
                f"{one.raw.location} has voxels of {one.voxel_nm} nm, {other.raw.location} of {other.voxel_nm} nm, and "
                "a model is for one size; resample one, or give both tables one data.voxel_nm to take them as alike"
            )
        if one.raw.location == other.raw.location:
            _refuse_overlap(one.raw.location, one.train, other.validation)
            _refuse_overlap(one.raw.location, other.train, one.validation)
    return volumes


def open_labelled(data: DataSettings, target: TargetSettings) -> LabelledVolume:
    """Open raw and labels, and check that they belong together.

    Labels are read a section at a time, until both classes were seen.

    Raises:
        SourceError: a volume that cannot be read.
        TrainingError: shapes that differ, sections that are not there or that validation shares with training, no
            voxel size, or labels that cannot be what they are said to be.
    """
    raw, labels = open_readable(data.raw, GREY), open_readable(data.labels, LABELS)
    if raw.shape != labels.shape:
        raise TrainingError(
            f"raw {data.raw} is {raw.shape}, labels {data.labels} are {labels.shape}; they must be alike"
        )
    _refuse_missing(raw.shape[0], "train", data.train)
    _refuse_missing(raw.shape[0], "validation", data.validation)
    _refuse_twice(data.train, "train")
    _refuse_twice(data.validation, "validation")
    _refuse_overlap(data.raw, data.train, data.validation)
    voxel_nm = data.voxel_nm or raw.voxel_nm
    if voxel_nm is None:
        raise TrainingError(f"{data.raw} states no voxel size; give data.voxel_nm = [Z, Y, X] in nanometres")
    meaning = LabelMeaning(target.kind, data.membrane, data.boundary_width, data.ignore, data.sure)
    volume = LabelledVolume(raw, labels, meaning, voxel_nm, data.train, data.validation, data.weight)
    if target.kind == "affinities":
        _refuse_far(volume, target.offsets)
    if meaning.of_ids:
        _refuse_mask(volume)
    if data.membrane == "probability" and labels.dtype != "uint8":
        raise TrainingError(
            f"labels {labels.location} are {labels.dtype}, and a map of probability is uint8, probability x 255, as "
            'volseg predict writes it; give that, or another data.membrane ("zero", "nonzero" or "boundaries")'
        )
    _refuse_one_class(volume, "train", data.train)
    if data.validation:
        _refuse_one_class(volume, "validation", data.validation)
    return volume


def refuse_not_finite(raw: NDArray[Any], location: str, first: int) -> None:
    """Refuse grey values that no network can take.

    Args:
        raw: some sections, (z, y, x).
        location: of their volume.
        first: the number of the first section.

    Raises:
        TrainingError: NaN or infinity.
    """
    if raw.dtype.kind != "f" or np.isfinite(raw).all():
        return
    section = first + int(np.argmin(np.isfinite(raw).all(axis=(1, 2))))
    raise TrainingError(f"{location} holds NaN or infinity in section {section}; repair it before training")


def _refuse_missing(sections: int, name: str, ranges: Ranges) -> None:
    for first, stop in ranges:
        if not 0 <= first < stop <= sections:
            raise TrainingError(
                f"data.{name} [{first}, {stop}] is not in a volume of {sections} sections; choose from [0, {sections}]"
            )


def _refuse_twice(ranges: Ranges, name: str) -> None:
    for (first, stop), (other, behind) in combinations(ranges, 2):
        if first < behind and other < stop:
            raise TrainingError(
                f"data.{name} names sections twice: [{first}, {stop}] and [{other}, {behind}] overlap; "
                "take them apart, or give data.weight to draw from a volume more often"
            )


def _refuse_overlap(location: str, train: Ranges, validation: Ranges) -> None:
    for first, stop in train:
        for other, behind in validation:
            if first < behind and other < stop:
                raise TrainingError(
                    f"data.train [{first}, {stop}] and data.validation [{other}, {behind}] share sections of "
                    f"{location}; a network is validated on what it never saw: choose other sections"
                )


def _refuse_far(volume: LabelledVolume, offsets: tuple[Zyx, ...]) -> None:
    reachable = (max(stop - first for first, stop in volume.train), *volume.shape[1:])
    for offset in offsets:
        if any(abs(step) >= n for step, n in zip(offset, reachable, strict=True)):
            raise TrainingError(
                f"target.offsets {list(offset)} is longer than what there is to train on, {reachable} voxels of "
                f"{volume.raw.location}; choose shorter ones, or more sections"
            )


def _refuse_mask(volume: LabelledVolume) -> None:
    """Ids are asked for: a mask has no two that touch."""
    wanted = "affinities" if volume.meaning.kind == "affinities" else 'data.membrane = "boundaries"'
    way_out = 'give labels that carry ids, or learn target.kind = "membrane" with data.membrane = "zero" or "nonzero"'
    seen: set[int] = set()

    def still_a_mask(box: Box) -> bool:
        seen.update(map(int, np.unique(volume.labels.read(box))))
        seen.difference_update({0} if volume.meaning.ignore is None else {0, volume.meaning.ignore})
        return len(seen) < 2

    if _all_sections(volume, volume.train, still_a_mask):
        only = f"0 and {seen.pop()} alone" if seen else "0 alone"
        raise TrainingError(f"labels {volume.labels.location} are {only}, but {wanted} need ids; {way_out}")


def _refuse_one_class(volume: LabelledVolume, name: str, ranges: Ranges) -> None:
    seen: set[Any] = set()

    def still_alike(box: Box) -> bool:
        known = volume.meaning.known(volume.labels, box)
        seen.update({known.min(), known.max()} if known.size else set())
        return len(seen) < 2

    if not _all_sections(volume, ranges, still_alike):
        return
    where = f"the sections of data.{name} {[list(pair) for pair in ranges]}"
    labels = volume.labels.location
    if not seen:
        raise TrainingError(f"labels {labels} are data.ignore = {volume.meaning.ignore} in all {where}; check them")
    if volume.meaning.kind == "affinities":
        raise TrainingError(f"labels {labels} are {seen.pop()} throughout {where}; affinities need ids that differ")
    raise TrainingError(
        f"labels {labels} call {seen.pop():.0%} of {where} membrane; "
        'check them and data.membrane ("zero", "nonzero", "boundaries" or "probability")'
    )


def _all_sections(volume: LabelledVolume, ranges: Ranges, holds: Callable[[Box], bool]) -> bool:
    """Whether something holds for every section; they are asked one by one, until one says no."""
    return all(holds(volume.section_box(z, z + 1)) for first, stop in ranges for z in range(first, stop))
