"""Normalise grey values with constants that are known before the first block.

Nothing here is computed from a block: its own mean would differ from its neighbour's, and show as a seam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from volseg.blocks import mirror_index
from volseg.errors import ConfigError
from volseg.ops.moments import Moments, SectionSum, pooled
from volseg.registry import NORMALIZATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Statistics: TypeAlias = "Sequence[tuple[float, float]] | NDArray[np.float64]"
"""(mean, standard deviation) pairs: one for the volume, or one for each of its sections, also as rows of an array. An
infinite standard deviation means no tissue: the input is 0, and so is the map."""

Measure: TypeAlias = "Callable[[NDArray[np.float64]], tuple[float, float]]"
"""The offset and scale of some voxels, as a 1-D array of at least one."""

Scope: TypeAlias = Literal["training", "volume", "section"]
"""Voxels that share one pair of constants."""


def mean_and_std(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation."""
    return float(values.mean()), float(values.std())


@dataclass(frozen=True, slots=True)
class NormalizationMode:
    """How the constants of (raw - mean) / std are computed; the type of plug-ins (group `volseg.normalizations`).

    Attributes:
        measure: returns the mean and the standard deviation of the imaged voxels of a section, or an offset and a
            scale in their place.
        scope: voxels that share one pair of constants; `section` unless `measure` is the default.
    """

    measure: Measure = mean_and_std
    scope: Scope = "section"

    @property
    def measure_of_values(self) -> Measure | None:
        """The measure; None for mean and standard deviation, which need only sums."""
        return None if self.measure is mean_and_std else self.measure

    def __post_init__(self) -> None:
        if self.scope != "section" and self.measure is not mean_and_std:
            raise ConfigError(f"scope {self.scope!r} pools means and deviations; use scope 'section' with a measure")


FIXED = NormalizationMode(scope="training")
VOLUME = NormalizationMode(scope="volume")
SECTION = NormalizationMode()


@dataclass(frozen=True, slots=True)
class Normalization:
    """How a network's input is computed from grey values: (raw - mean) / std.

    Attributes:
        mode: name of a mode: `fixed` takes mean and standard deviation of the training data; `volume`, those of the
            volume; `section`, those of each section (brightness varies from section to section); or a plug-in.
        training: mean and standard deviation of the training data, in its grey values.
        dtype: type of the training data; `fixed` supports this type only.
    """

    mode: str
    training: tuple[float, float]
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        NORMALIZATIONS.check(self.mode)
        mean, std = self.training
        if not (np.isfinite(mean) and np.isfinite(std) and std > 0):
            raise ConfigError(f"normalization.training is ({mean}, {std}); a mean is finite, a deviation above 0")

    @property
    def scope(self) -> Scope:
        """Voxels that share one pair of constants."""
        return normalization_mode(self.mode).scope

    def statistics_of(self, raw: NDArray[Any]) -> Statistics:
        """The constants for a whole volume (z, y, x) or section (y, x) in memory."""
        if self.scope == "training":
            return (self.training,)
        return self.constants_of([self.moments(section) for section in (raw if raw.ndim > 2 else [raw])])

    def moments(self, section: NDArray[Any]) -> Moments:
        """Moments of the tissue of a section (y, x), as this mode measures them; NaN and infinity do not count."""
        measure = normalization_mode(self.mode).measure_of_values
        tissue = SectionSum(section.dtype, collect=measure is not None)
        tissue.add(np.where(np.isfinite(section), section, section.dtype.type(0)))
        return section_moments(tissue, measure)

    def constants_of(self, sections: Sequence[Moments]) -> Statistics:
        """The constants from the moments of all sections."""
        return (pooled(sections).constants,) if self.scope == "volume" else tuple(one.constants for one in sections)


def normalization_mode(name: str) -> NormalizationMode:
    """The mode of a name.

    Raises:
        ConfigError: an unknown name, or a plug-in that is not a `NormalizationMode`.
    """
    mode = NORMALIZATIONS[name]
    if not isinstance(mode, NormalizationMode):
        raise ConfigError(f"normalisation {name!r} is a {type(mode).__name__}; declare a NormalizationMode")
    return mode


def moments(raw: NDArray[Any]) -> tuple[float, float]:
    """Mean and standard deviation of the imaged voxels.

    Voxels that are exactly 0 (the fill around an aligned volume) or not finite do not count; if there are no others,
    the mean is 0. A constant image gets the standard deviation 1, so that it normalises to 0.

    >>> moments(np.uint8([[0, 0], [10, 30]]))
    (20.0, 10.0)
    """
    values = raw.astype(np.float64).ravel()
    imaged = values[np.isfinite(values) & (values != 0)]
    mean, std = mean_and_std(imaged) if imaged.size else (0.0, 0.0)
    return mean, std or 1.0


def section_moments(section: SectionSum, measure: Measure | None) -> Moments:
    """Moments of a section's tissue, or what a mode measures of it.

    Raises:
        ConfigError: `measure` returns a number that is not finite, or a negative scale.
    """
    mean, std, count = section.moments(measure)
    if not (np.isfinite(mean) and np.isfinite(std) and std >= 0):
        raise ConfigError(f"the normalisation measures ({mean}, {std}); an offset is finite, a scale 0 or more")
    return Moments(mean, std, count)


@dataclass(frozen=True, slots=True)
class Grey:
    """Grey values as read, and the constants of a network's input: (raw - mean) * scale.

    Attributes:
        raw: (z, y, x), of any type.
        mean: of each section, float32, (z, 1, 1).
        scale: 1 / standard deviation of each section, float32, (z, 1, 1).
    """

    raw: NDArray[Any]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def of(cls, raw: NDArray[Any], statistics: Statistics, first_section: int = 0) -> Grey:
        """Combine voxels with the constants of their sections.

        Args:
            raw: (z, y, x).
            statistics: one pair for all, or one for each section of the *volume*.
            first_section: section of the volume at raw's first; sections outside the volume take the constants of
                their mirror image, like the voxels.
        """
        sections = range(first_section, first_section + raw.shape[0])
        indices = (mirror_index(z, len(statistics)) if len(statistics) > 1 else 0 for z in sections)
        pairs = np.asarray([statistics[z] for z in indices], np.float64).reshape(-1, 2, 1, 1)
        mean = pairs[:, 0].astype(np.float32)
        if raw.dtype.kind == "f":
            raw = np.where(np.isfinite(raw), raw, mean)  # the input 0 where there is no data
        return cls(raw, mean, (1 / pairs[:, 1]).astype(np.float32))

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
        first_section: section of the volume at raw's first.

    >>> normalize(np.uint8([[[10]], [[20]]]), ((10.0, 1.0), (10.0, 5.0))).ravel().tolist()
    [0.0, 2.0]
    """
    volume = raw[None] if raw.ndim == 2 else raw
    return Grey.of(volume, statistics, first_section).normalized().reshape(raw.shape)


def to_uint8(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Map probabilities in [0, 1] to 0..255, rounding to nearest; same shape.

    Values outside [0, 1] are clipped. The caller makes sure that none is NaN.

    >>> to_uint8(np.float32([0, 0.5, 1, 1.5])).tolist()
    [0, 128, 255, 255]
    """
    stored: NDArray[np.uint8] = np.rint(np.clip(probability, 0, 1) * np.float32(255)).astype(np.uint8)
    return stored


def to_probability(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Map bytes back to probabilities; at most half a step from the original.

    >>> to_probability(np.uint8([0, 51, 255])).round(3).tolist()
    [0.0, 0.20000000298023224, 1.0]
    """
    return stored.astype(np.float32) / np.float32(255)
