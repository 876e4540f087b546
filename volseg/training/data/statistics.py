"""Grey-value statistics of the training sections, read once before the first step."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, TypeAlias

from volseg.errors import ConfigError
from volseg.ops import Normalization
from volseg.ops.normalize import imaged_moments, normalization_mode
from volseg.storage import pooled_moments, sample_slabs
from volseg.training.data.volumes import refuse_non_finite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from volseg.ops import Statistics
    from volseg.ops.normalize import Scope
    from volseg.training.data.volumes import LabelledVolume

_Moments: TypeAlias = tuple[float, float, float]
"""Mean, standard deviation and number of voxels of a section."""


@dataclass(frozen=True)
class TrainingStatistics:
    """Normalisation constants of a training.

    Attributes:
        normalization: of the model, with the moments of all training sections of all volumes.
        by_range: constants of each training range, `by_range[volume][range]`: one pair, or one for each section of the
            range. In mode `volume` the pair is that of all training sections of the volume.
    """

    normalization: Normalization
    by_range: tuple[tuple[Statistics, ...], ...]


def training_statistics(
    volumes: Sequence[LabelledVolume], mode: str, on_section: Callable[[int, int], None] = lambda done, total: None
) -> TrainingStatistics:
    """Read the moments of all training sections; sections above 1024 x 1024 voxels are sampled in windows.

    Args:
        volumes: all of the training.
        mode: of the normalisation.
        on_section: called with the number of sections done and their total.

    Raises:
        SourceError: voxels cannot be read.
        TrainingError: voxels are NaN or infinite.
        ConfigError: types differ in mode `fixed`.
    """
    definition = normalization_mode(mode)
    dtypes = sorted({volume.raw.dtype for volume in volumes})
    if definition.scope == "training" and len(dtypes) > 1:
        raise ConfigError(
            f"raw volumes are {' and '.join(dtypes)}, but fixed normalisation needs one type; "
            'use network.normalization = "section" or "volume", or convert them'
        )
    total = sum(stop - first for volume in volumes for first, stop in volume.train)
    done = 0

    def read_range(volume: LabelledVolume, first: int, stop: int) -> list[_Moments]:
        nonlocal done
        sections: list[_Moments] = []
        for slab in sample_slabs(volume.raw, first, stop):
            refuse_non_finite(slab, volume.raw.location, first + len(sections))
            fraction = prod(slab.shape[1:]) / prod(volume.shape[1:])  # windows represent the whole section
            moments = [imaged_moments(section, definition.measure) for section in slab]
            sections += [(mean, std, count / fraction) for mean, std, count in moments]
            done += len(slab)
            on_section(done, total)
        return sections

    volume_moments = [[read_range(volume, first, stop) for first, stop in volume.train] for volume in volumes]
    training = pooled_moments([section for ranges in volume_moments for sections in ranges for section in sections])
    normalization = Normalization(mode, training, volumes[0].raw.dtype)
    constants = tuple(_constants(ranges, definition.scope, training) for ranges in volume_moments)
    return TrainingStatistics(normalization, constants)


def _constants(ranges: list[list[_Moments]], scope: Scope, training: tuple[float, float]) -> tuple[Statistics, ...]:
    """Constants of the ranges of one volume."""
    if scope == "section":
        return tuple(tuple((mean, std or 1.0) for mean, std, _ in sections) for sections in ranges)
    pair = training if scope == "training" else pooled_moments([section for sections in ranges for section in sections])
    return ((pair,),) * len(ranges)
