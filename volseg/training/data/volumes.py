"""Labelled volumes: opened and checked before the first step, read a box at a time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from volseg.blocks import Box
from volseg.errors import ConfigError, TrainingError
from volseg.storage import GREY, LABELS, ReadOptions, open_readable, parse_axes
from volseg.training.data.labels import LabelEncoding, is_ignored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from volseg.blocks import Zyx, ZyxFloat
    from volseg.config.train_tables import DataSettings, TargetSettings
    from volseg.storage import Readable

_VOXEL_SIZE_TOLERANCE = 0.01

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Ranges of sections [first, stop)."""


@dataclass(frozen=True)
class LabelledVolume:
    """Grey values with labels, axes (z, y, x); voxels stay on disk until they are read.

    Attributes:
        raw: grey values.
        labels: as stored.
        encoding: meaning of stored labels.
        voxel_nm: voxel size (z, y, x) in nanometres.
        train: sections to train on.
        validation: sections to score.
        weight: how often patches are drawn, relative to the volume's size.
    """

    raw: Readable
    labels: Readable
    encoding: LabelEncoding
    voxel_nm: ZyxFloat
    train: Ranges
    validation: Ranges = ()
    weight: float = 1.0

    @property
    def shape(self) -> Zyx:
        """Voxels along z, y, x."""
        return self.raw.shape

    def read_labels(self, box: Box) -> NDArray[np.int32]:
        """Read the labels of a box as in `Sample.labels`, mirrored outside of the volume."""
        return self.encoding.read(self.labels, box)

    def section_box(self, first: int, stop: int) -> Box:
        """The box of whole sections [first, stop)."""
        return Box((first, 0, 0), (stop, *self.shape[1:]))

    def read_validation(self) -> tuple[ValidationSections, ...]:
        """Read the validation sections into memory, one entry for each range.

        Raises:
            SourceError: voxels cannot be read.
            TrainingError: grey values are NaN or infinite.
        """
        return tuple(self._read_validation_range(first, stop) for first, stop in self.validation)

    def _read_validation_range(self, first: int, stop: int) -> ValidationSections:
        box = self.section_box(first, stop)
        raw = self.raw.read(box)
        refuse_non_finite(raw, self.raw.location, first)
        cells = np.stack([self.encoding.connected_cells(self.labels, z) for z in range(first, stop)])
        return ValidationSections(raw, self.read_labels(box), cells)


@dataclass(frozen=True)
class ValidationSections:
    """Consecutive sections held out from training, axes (z, y, x).

    Attributes:
        raw: grey values, in their own type.
        labels: int32, as in `Sample.labels`.
        cell_ids: int32; connected cells of each section, 0 on membrane, -1 on unlabelled voxels.
    """

    raw: NDArray[Any]
    labels: NDArray[np.int32]
    cell_ids: NDArray[np.int32]


def open_volumes(tables: Sequence[DataSettings], target: TargetSettings) -> tuple[LabelledVolume, ...]:
    """Open all volumes of a training.

    Raises:
        SourceError: a volume cannot be read.
        ConfigError: as `open_labelled`; voxel sizes differ; a table validates on sections that another trains on.
    """
    volumes = tuple(open_labelled(table, target) for table in tables)
    for one, other in combinations(volumes, 2):
        if any(
            abs(a - b) > _VOXEL_SIZE_TOLERANCE * max(a, b) for a, b in zip(one.voxel_nm, other.voxel_nm, strict=True)
        ):
            raise ConfigError(
                f"{one.raw.location} has voxels of {one.voxel_nm} nm, {other.raw.location} of {other.voxel_nm} nm, but "
                "a model has one voxel size; resample one, or set the same data.voxel_nm for both"
            )
        if one.raw.location == other.raw.location:
            _refuse_shared_sections(one.raw.location, one.train, other.validation)
            _refuse_shared_sections(one.raw.location, other.train, one.validation)
    return volumes


def open_labelled(data: DataSettings, target: TargetSettings) -> LabelledVolume:
    """Open raw and labels, and check that they match.

    Labels are read section by section, until both classes are found.

    Raises:
        SourceError: a volume cannot be read.
        ConfigError: shapes differ, sections do not exist or are used for both training and validation, the voxel
            size is missing, or labels do not fit their stated meaning.
    """
    axes, label_axes = (None if text is None else parse_axes(text) for text in (data.axes, data.label_axes))
    raw = open_readable(data.raw, GREY, ReadOptions(axes, data.channel))
    labels = open_readable(data.labels, LABELS, ReadOptions(label_axes))
    if raw.shape != labels.shape:
        raise ConfigError(
            f"raw {data.raw} is {raw.shape}, labels {data.labels} are {labels.shape}; the shapes must be equal"
        )
    for name, ranges in (("train", data.train), ("validation", data.validation)):
        _refuse_missing_sections(raw.shape[0], name, ranges)
        _refuse_duplicate_sections(name, ranges)
    _refuse_shared_sections(data.raw, data.train, data.validation)
    voxel_nm = data.voxel_nm or raw.voxel_nm
    if voxel_nm is None:
        raise ConfigError(f"{data.raw} states no voxel size; give data.voxel_nm = [Z, Y, X] in nanometres")
    encoding = LabelEncoding(target.kind, data.membrane, data.boundary_width, data.ignore, data.probability_thresholds)
    volume = LabelledVolume(raw, labels, encoding, voxel_nm, data.train, data.validation, data.weight)
    if target.kind == "affinities":
        _refuse_long_offsets(volume, target.offsets)
    if encoding.requires_ids:
        _refuse_mask(volume)
    if data.membrane == "probability" and labels.dtype != "uint8":
        raise ConfigError(
            f"labels {labels.location} are {labels.dtype}, but a probability map is uint8, probability x 255, as "
            'volseg predict writes it; give such a map, or another data.membrane ("zero", "nonzero" or "boundaries")'
        )
    _refuse_one_class(volume, "train", data.train)
    if data.validation:
        _refuse_one_class(volume, "validation", data.validation)
    return volume


def refuse_non_finite(raw: NDArray[Any], location: str, first: int) -> None:
    """Refuse grey values that are NaN or infinite.

    Args:
        raw: some sections, (z, y, x).
        location: of their volume.
        first: number of the first section.

    Raises:
        TrainingError: NaN or infinity.
    """
    if raw.dtype.kind != "f" or np.isfinite(raw).all():
        return
    section = first + int(np.argmin(np.isfinite(raw).all(axis=(1, 2))))
    raise TrainingError(f"{location} contains NaN or infinity in section {section}; repair it before training")


def _refuse_missing_sections(sections: int, name: str, ranges: Ranges) -> None:
    for first, stop in ranges:
        if not 0 <= first < stop <= sections:
            raise ConfigError(
                f"data.{name} [{first}, {stop}] is not in a volume of {sections} sections; choose from [0, {sections}]"
            )


def _refuse_duplicate_sections(name: str, ranges: Ranges) -> None:
    for (first, stop), (other_first, other_stop) in combinations(ranges, 2):
        if first < other_stop and other_first < stop:
            raise ConfigError(
                f"data.{name} lists sections twice: [{first}, {stop}] and [{other_first}, {other_stop}] overlap; "
                "separate them, or use data.weight to draw from a volume more often"
            )


def _refuse_shared_sections(location: str, train: Ranges, validation: Ranges) -> None:
    for first, stop in train:
        for other_first, other_stop in validation:
            if first < other_stop and other_first < stop:
                raise ConfigError(
                    f"data.train [{first}, {stop}] and data.validation [{other_first}, {other_stop}] share sections of "
                    f"{location}; choose validation sections that are not trained on"
                )


def _refuse_long_offsets(volume: LabelledVolume, offsets: tuple[Zyx, ...]) -> None:
    shape = (max(stop - first for first, stop in volume.train), *volume.shape[1:])
    for offset in offsets:
        if any(abs(step) >= n for step, n in zip(offset, shape, strict=True)):
            raise ConfigError(
                f"target.offsets {list(offset)} does not fit into the {shape} training voxels of "
                f"{volume.raw.location}; use shorter offsets, or more sections"
            )


def _refuse_mask(volume: LabelledVolume) -> None:
    """Refuse labels with a single id."""
    purpose = "affinities" if volume.encoding.kind == "affinities" else 'data.membrane = "boundaries"'
    remedy = 'give labels with ids, or use target.kind = "membrane" with data.membrane = "zero" or "nonzero"'
    ids: set[int] = set()

    def has_one_id(box: Box) -> bool:
        stored = volume.labels.read(box)
        ids.update(map(int, np.unique(stored[~is_ignored(stored, volume.encoding.ignore)])))
        ids.discard(0)
        return len(ids) < 2

    if _all_sections(volume, volume.train, has_one_id):
        values = f"0 and {ids.pop()} only" if ids else "0 only"
        raise ConfigError(f"labels {volume.labels.location} are {values}, but {purpose} need ids; {remedy}")


def _refuse_one_class(volume: LabelledVolume, name: str, ranges: Ranges) -> None:
    values: set[Any] = set()

    def has_one_class(box: Box) -> bool:
        box_values = volume.encoding.class_values(volume.labels, box)
        values.update({box_values.min(), box_values.max()} if box_values.size else set())
        return len(values) < 2

    if not _all_sections(volume, ranges, has_one_class):
        return
    sections = f"all sections of data.{name} {[list(pair) for pair in ranges]}"
    labels = volume.labels.location
    if not values:
        raise ConfigError(
            f"labels {labels} are below 0 or data.ignore = {volume.encoding.ignore} in {sections}, so nothing is "
            "known there; check them"
        )
    if volume.encoding.kind == "affinities":
        raise ConfigError(f"labels {labels} are {values.pop()} in {sections}; affinities need different ids")
    raise ConfigError(
        f"labels {labels} are {values.pop():.0%} membrane in {sections}; "
        'check them and data.membrane ("zero", "nonzero", "boundaries" or "probability")'
    )


def _all_sections(volume: LabelledVolume, ranges: Ranges, predicate: Callable[[Box], bool]) -> bool:
    """Test sections in order, until one fails."""
    return all(predicate(volume.section_box(z, z + 1)) for first, stop in ranges for z in range(first, stop))
