"""Grey values made comparable, with constants that are known before the first block.

Nothing here is computed from a block: a block's own mean would colour its result, and neighbours would show a seam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from volseg.blocks import mirror_index
from volseg.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Statistics: TypeAlias = tuple[tuple[float, float], ...]
"""(mean, standard deviation) pairs: one for the volume, or one for each of its sections."""

Mode: TypeAlias = Literal["fixed", "volume", "section"]


@dataclass(frozen=True, slots=True)
class Normalization:
    """How a network's input is made from grey values: (raw - mean) / std.

    Attributes:
        mode: whose mean and standard deviation: `fixed`, those of the training data; `volume`, one pair for the
            volume at hand; `section`, a pair for each of its sections (brightness varies from section to section).
        training: mean and standard deviation of the training data, in its grey values.
        dtype: type of the training data; `fixed` holds for this type alone.
    """

    mode: Mode
    training: tuple[float, float]
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        if self.mode not in ("fixed", "volume", "section"):
            raise ConfigError(f"normalisation {self.mode!r} is not one of 'fixed', 'volume', 'section'")

    def statistics_of(self, raw: NDArray[Any]) -> Statistics:
        """The constants for a whole volume (z, y, x) or section (y, x) in memory."""
        if self.mode == "fixed":
            return (self.training,)
        if self.mode == "volume" or raw.ndim < 3:
            return (moments(raw),)
        return section_moments(raw)


def moments(raw: NDArray[Any]) -> tuple[float, float]:
    """Mean and standard deviation of what was imaged.

    Voxels that are exactly 0 (the fill around an aligned volume) or not finite do not count, unless there are no
    others. A constant image gets the standard deviation 1, so that it normalises to 0.

    >>> moments(np.uint8([[0, 0], [10, 30]]))
    (20.0, 10.0)
    """
    mean, std, _ = imaged_moments(raw)
    return mean, std or 1.0


def imaged_moments(raw: NDArray[Any]) -> tuple[float, float, int]:
    """Mean, true standard deviation and number of the voxels that count; (0, 0, 0) where none does."""
    values = raw.astype(np.float64).ravel()
    imaged = values[np.isfinite(values) & (values != 0)]
    if not imaged.size:
        return 0.0, 0.0, 0
    return float(imaged.mean()), float(imaged.std()), int(imaged.size)


def section_moments(raw: NDArray[Any]) -> Statistics:
    """`moments` of each section of a volume (z, y, x)."""
    return tuple(moments(section) for section in raw)


def normalize(raw: NDArray[Any], statistics: Statistics, first_section: int = 0) -> NDArray[np.float32]:
    """Apply frozen constants: (raw - mean) / std, as float32 of the same shape.

    Args:
        raw: (z, y, x), or (y, x) with a single pair of constants.
        statistics: one pair for all, or one for each section of the *volume*.
        first_section: the volume's section at raw's first; negative and overhanging ones are mirrored, as the
            voxels were.

    >>> normalize(np.uint8([[[10]], [[20]]]), ((10.0, 1.0), (10.0, 5.0))).ravel().tolist()
    [0.0, 2.0]
    """
    pairs = statistics
    if len(statistics) > 1:
        pairs = tuple(statistics[mirror_index(first_section + z, len(statistics))] for z in range(raw.shape[0]))
    axes = (-1,) + (1,) * (raw.ndim - 1)
    mean = np.asarray([pair[0] for pair in pairs], np.float32).reshape(axes)
    scale = np.asarray([1 / pair[1] for pair in pairs], np.float32).reshape(axes)
    result: NDArray[np.float32] = (raw.astype(np.float32) - mean) * scale
    return result
