"""Grey-value statistics of the training sections, read once before the first step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from volseg.blocks import Box
from volseg.errors import ConfigError, TrainingError
from volseg.ops import Normalization
from volseg.ops.moments import Moments, pooled
from volseg.ops.normalize import normalization_mode
from volseg.storage import slab_statistics, slabs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from volseg.ops import Statistics
    from volseg.ops.normalize import Scope
    from volseg.training.data.volumes import LabelledVolume


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
    """Read the moments of the tissue in all training sections.

    Args:
        volumes: all of the training.
        mode: of the normalisation.
        on_section: called with the number of sections done and their total.

    Raises:
        SourceError: voxels cannot be read.
        TrainingError: voxels are NaN or infinite, or there is no tissue.
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

    def read_range(volume: LabelledVolume, first: int, stop: int) -> list[Moments]:
        nonlocal done
        sections: list[Moments] = []
        for slab in slabs(volume.shape, volume.raw.chunk, first, stop):
            statistics = slab_statistics(volume.raw, slab, (mode,), Box.of_shape(volume.shape))
            for section in statistics.not_finite:
                raise TrainingError(
                    f"{volume.raw.location} contains NaN or infinity in section {section}; repair it before training"
                )
            sections += statistics.moments[0]
            done += slab[1] - slab[0]
            on_section(done, total)
        return sections

    volume_moments = [[read_range(volume, first, stop) for first, stop in volume.train] for volume in volumes]
    whole = pooled([section for ranges in volume_moments for sections in ranges for section in sections])
    if not whole.std:
        raise TrainingError(
            f"the training sections of {', '.join(volume.raw.location for volume in volumes)} hold no tissue: all "
            "grey values are 0, or one value fills them; check data.raw and data.train"
        )
    training = whole.constants
    normalization = Normalization(mode, training, volumes[0].raw.dtype)
    constants = tuple(_constants(ranges, definition.scope, training) for ranges in volume_moments)
    return TrainingStatistics(normalization, constants)


def _constants(ranges: list[list[Moments]], scope: Scope, training: tuple[float, float]) -> tuple[Statistics, ...]:
    """Constants of the ranges of one volume."""
    if scope == "section":
        return tuple(tuple(moments.constants for moments in sections) for sections in ranges)
    whole = pooled([moments for sections in ranges for moments in sections])
    return ((training if scope == "training" else whole.constants,),) * len(ranges)
