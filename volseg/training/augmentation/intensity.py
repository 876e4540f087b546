"""Grey values: what stain, beam and detector make of the same tissue. Only raw changes.

Raw is normalised: its mean is about 0 and its standard deviation about 1, and all amounts are in these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from volseg.training.augmentation.resample import changed_sections
from volseg.training.augmentation.rng import per_patch, sample_sections

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from volseg.training.augmentation.rng import RNGs
    from volseg.training.data.sample import Sample

_RANGE = 3.0
"""Grey values from - this to + this are curved by gamma: about all that 8 bits hold, which span 5 to 6 deviations."""
_SHIFT = (1.0, 2.0)
"""How much too dark or too bright a section is, from and to."""
_FADED = 0.4
"""The least contrast of such a section."""


@dataclass(frozen=True)
class Brighten:
    """Grey values shifted by -`greatest` to `greatest`."""

    greatest: float

    def __call__(self, sample: Sample, chances: RNGs) -> Sample:
        shifts = [chance.uniform(-self.greatest, self.greatest) for chance in chances]
        return replace(sample, raw=sample.raw + per_patch(shifts, sample.raw))


@dataclass(frozen=True)
class Contrast:
    """Grey values scaled about 0, their mean, by 1 - `greatest` to 1 / (1 - `greatest`): as often down as up."""

    greatest: float

    def __call__(self, sample: Sample, chances: RNGs) -> Sample:
        return replace(sample, raw=sample.raw * per_patch([_factor(c, self.greatest) for c in chances], sample.raw))


@dataclass(frozen=True)
class Gamma:
    """The grey-value curve bent, by an exponent from 1 - `greatest` to 1 / (1 - `greatest`)."""

    greatest: float

    def __call__(self, sample: Sample, chances: RNGs) -> Sample:
        return replace(
            sample, raw=curved(sample.raw, per_patch([_factor(c, self.greatest) for c in chances], sample.raw))
        )


@dataclass(frozen=True)
class Shade:
    """Sections, by chance, that are much too dark or too bright, and paler for it."""

    share: float

    def __call__(self, sample: Sample, chances: RNGs) -> Sample:
        met = sample_sections(chances, self.share, sample.raw.shape[1])
        if not met:
            return sample
        scale = per_patch([chance.uniform(_FADED, 1) for _, chance in met], sample.raw)
        shift = per_patch([chance.choice((-1, 1)) * chance.uniform(*_SHIFT) for _, chance in met], sample.raw)
        raw = changed_sections(sample.raw, [section for section, _ in met], lambda some: some * scale + shift)
        return replace(sample, raw=raw)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise, its standard deviation from 0 to `greatest`, another in each patch."""

    greatest: float

    def __call__(self, sample: Sample, chances: RNGs) -> Sample:
        raw = [patch + _noise(patch, chance, self.greatest) for patch, chance in zip(sample.raw, chances, strict=True)]
        return replace(sample, raw=torch.stack(raw))


@dataclass(frozen=True)
class Miss:
    """Sections, by chance, of one grey: never cut, lost or torn. Their labels stay: neighbours show what was there."""

    share: float

    def __call__(self, sample: Sample, chances: RNGs) -> Sample:
        depth = sample.raw.shape[1]
        met = sample_sections(chances, self.share, depth)
        if depth == 1 or not met:
            return sample
        greys = per_patch([chance.uniform(-_RANGE, _RANGE) for _, chance in met], sample.raw)
        raw = changed_sections(sample.raw, [section for section, _ in met], lambda some: greys.expand_as(some).clone())
        return replace(sample, raw=raw)


def curved(raw: Tensor, exponent: Tensor) -> Tensor:
    """Gamma for normalised grey values: -3 to 3 as 0 to 1, to the exponent, and back; beyond, values stay.

    Continuous, and rising for every exponent above 0.

    >>> curved(torch.tensor([-4.0, -3.0, 0.0, 3.0, 4.0]), torch.tensor(2.0)).tolist()
    [-4.0, -3.0, -1.5, 3.0, 4.0]
    """
    share = ((raw + _RANGE) / (2 * _RANGE)).clamp(0, 1)
    return raw + 2 * _RANGE * (share**exponent - share)


def _factor(chance: np.random.Generator, greatest: float) -> float:
    """From 1 - greatest to its inverse, even on the logarithmic scale."""
    return float((1 - greatest) ** chance.uniform(-1, 1))


def _noise(patch: Tensor, chance: np.random.Generator, greatest: float) -> Tensor:
    std = chance.uniform(0, greatest)
    generator = torch.Generator(patch.device).manual_seed(int(chance.integers(2**63)))
    return torch.randn(patch.shape, generator=generator, device=patch.device) * std
