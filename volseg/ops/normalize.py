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


@dataclass(frozen=True, slots=True)
class Grey:
    """Grey values as they were read, and what makes a network's input of them: (raw - mean) * scale.

    Attributes:
        raw: (z, y, x), of any type.
        mean: of each section, float32, (z, 1, 1).
        scale: one over the standard deviation, likewise.
    """

    raw: NDArray[Any]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def of(cls, raw: NDArray[Any], statistics: Statistics, first_section: int = 0) -> Grey:
        """Voxels with the constants of their sections.

        Args:
            raw: (z, y, x).
            statistics: one pair for all, or one for each section of the *volume*.
            first_section: the volume's section at raw's first; negative and overhanging ones are mirrored, as the
                voxels were.
        """
        many = len(statistics) > 1
        at = (mirror_index(first_section + z, len(statistics)) if many else 0 for z in range(raw.shape[0]))
        pairs = np.asarray([statistics[z] for z in at], np.float64).reshape(-1, 2, 1, 1)
        return cls(raw, pairs[:, 0].astype(np.float32), (1 / pairs[:, 1]).astype(np.float32))

    def __getitem__(self, slices: tuple[slice, slice, slice]) -> Grey:
        """A box of these voxels."""
        return Grey(self.raw[slices], self.mean[slices[0]], self.scale[slices[0]])

    def normalized(self) -> NDArray[np.float32]:
        """The network's input."""
        result: NDArray[np.float32] = (self.raw.astype(np.float32) - self.mean) * self.scale
        return result


def normalize(raw: NDArray[Any], statistics: Statistics, first_section: int = 0) -> NDArray[np.float32]:
    """Apply frozen constants: (raw - mean) / std, as float32 of the same shape; see `Grey`.

    Args:
        raw: (z, y, x), or (y, x) with a single pair of constants.
        statistics: one pair for all, or one for each section of the *volume*.
        first_section: the volume's section at raw's first.

    >>> normalize(np.uint8([[[10]], [[20]]]), ((10.0, 1.0), (10.0, 5.0))).ravel().tolist()
    [0.0, 2.0]
    """
    made = Grey.of(raw[None] if raw.ndim == 2 else raw, statistics, first_section).normalized()
    return made.reshape(raw.shape)


def to_uint8(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Map probabilities in [0, 1] to 0..255, rounding to nearest; same shape.

    Values outside [0, 1] are clipped. The caller sees to it that none is NaN.

    >>> to_uint8(np.float32([0, 0.5, 1, 1.5])).tolist()
    [0, 128, 255, 255]
    """
    stored: NDArray[np.uint8] = np.rint(np.clip(probability, 0, 1) * np.float32(255)).astype(np.uint8)
    return stored


def to_probability(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Map bytes back to probabilities; off by at most half a step from what was stored.

    >>> to_probability(np.uint8([0, 51, 255])).round(3).tolist()
    [0.0, 0.20000000298023224, 1.0]
    """
    return stored.astype(np.float32) / np.float32(255)
