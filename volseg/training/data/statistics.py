"""Grey-value constants of a training, read once from its training sections and then frozen."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from volseg.errors import TrainingError
from volseg.ops import Normalization
from volseg.ops.normalize import imaged_moments
from volseg.storage import pooled, sampled_slabs
from volseg.training.data.volumes import refuse_not_finite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from volseg.ops import Statistics
    from volseg.ops.normalize import Mode
    from volseg.training.data.volumes import LabelledVolume


@dataclass(frozen=True)
class TrainingStatistics:
    """How the grey values of a training are made comparable.

    Attributes:
        normalization: the model's, with the moments of all training sections of all volumes.
        of_ranges: the constants of each volume's training ranges, `of_ranges[volume][range]`: one pair, or one for
            each section of the range. A volume's own pair, where the mode is `volume`, is that of all its training
            sections.
    """

    normalization: Normalization
    of_ranges: tuple[tuple[Statistics, ...], ...]


def training_statistics(
    volumes: Sequence[LabelledVolume], mode: Mode, on_section: Callable[[int, int], None] = lambda done, total: None
) -> TrainingStatistics:
    """Read the moments of all training sections; of sections above 1024 x 1024 voxels, of windows spread over them.

    Args:
        volumes: all of the training.
        mode: whose constants normalise a patch.
        on_section: told how many sections are done, of how many.

    Raises:
        SourceError: voxels that cannot be read.
        TrainingError: voxels that are not finite, or types that differ where the mode is `fixed`.
    """
    dtypes = sorted({volume.raw.dtype for volume in volumes})
    if mode == "fixed" and len(dtypes) > 1:
        raise TrainingError(
            f"raw volumes hold {' and '.join(dtypes)}, which one fixed mean cannot suit; "
            'give network.normalization = "section" or "volume", or convert them'
        )
    total = sum(stop - first for volume in volumes for first, stop in volume.train)
    done = 0

    def of_range(volume: LabelledVolume, first: int, stop: int) -> list[tuple[float, float, float]]:
        nonlocal done
        sections: list[tuple[float, float, float]] = []
        for slab in sampled_slabs(volume.raw, first, stop):
            refuse_not_finite(slab, volume.raw.location, first + len(sections))
            share = prod(slab.shape[1:]) / prod(volume.shape[1:])  # windows stand for the whole section
            moments = [imaged_moments(section) for section in slab]
            sections += [(mean, std, count / share) for mean, std, count in moments]
            done += len(slab)
            on_section(done, total)
        return sections

    read = [[of_range(volume, first, stop) for first, stop in volume.train] for volume in volumes]
    training = pooled([section for ranges in read for sections in ranges for section in sections])
    normalization = Normalization(mode, training, volumes[0].raw.dtype)
    return TrainingStatistics(normalization, tuple(_constants(ranges, mode, training) for ranges in read))


def _constants(
    ranges: list[list[tuple[float, float, float]]], mode: Mode, training: tuple[float, float]
) -> tuple[Statistics, ...]:
    """The constants of one volume's ranges."""
    if mode == "section":
        return tuple(tuple((mean, std or 1.0) for mean, std, _ in sections) for sections in ranges)
    pair = training if mode == "fixed" else pooled([section for sections in ranges for section in sections])
    return ((pair,),) * len(ranges)
