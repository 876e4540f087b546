"""Grey values: variation of stain, beam and detector. Only raw changes.

Raw is normalised to mean 0 and standard deviation 1; all amounts are in these units.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from volseg.training.augmentation.resample import apply_to_sections
from volseg.training.augmentation.rng import per_patch, sample_sections

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from volseg.training.augmentation.rng import RNGs
    from volseg.training.data.sample import Sample

_RANGE = 3.0
"""Gamma changes grey values from -3 to 3: about all of an 8-bit image, which spans 5 to 6 standard deviations."""
_SHADING_SHIFT = (1.0, 2.0)
"""Range of the shift of a section that is too dark or too bright."""
_SHADING_CONTRAST = 0.4
"""Minimum contrast of such a section."""


@dataclass(frozen=True)
class RandomBrightness:
    """Shift grey values by -`max_shift` to `max_shift`."""

    max_shift: float

    def __call__(self, sample: Sample, rngs: RNGs) -> Sample:
        shifts = [rng.uniform(-self.max_shift, self.max_shift) for rng in rngs]
        return replace(sample, raw=sample.raw + per_patch(shifts, sample.raw))


@dataclass(frozen=True)
class RandomContrast:
    """Scale grey values about their mean, 0, by 1 - `strength` to 1 / (1 - `strength`)."""

    strength: float

    def __call__(self, sample: Sample, rngs: RNGs) -> Sample:
        factors = per_patch([_random_factor(rng, self.strength) for rng in rngs], sample.raw)
        return replace(sample, raw=sample.raw * factors)


@dataclass(frozen=True)
class RandomGamma:
    """Bend the grey-value curve with an exponent from 1 - `strength` to 1 / (1 - `strength`)."""

    strength: float

    def __call__(self, sample: Sample, rngs: RNGs) -> Sample:
        exponents = per_patch([_random_factor(rng, self.strength) for rng in rngs], sample.raw)
        return replace(sample, raw=adjust_gamma(sample.raw, exponents))


@dataclass(frozen=True)
class SectionShading:
    """Make random sections much too dark or too bright, with less contrast."""

    probability: float

    def __call__(self, sample: Sample, rngs: RNGs) -> Sample:
        sections = sample_sections(rngs, self.probability, sample.raw.shape[1])
        if not sections:
            return sample
        scale = per_patch([rng.uniform(_SHADING_CONTRAST, 1) for _, rng in sections], sample.raw)
        shift = per_patch([rng.choice((-1, 1)) * rng.uniform(*_SHADING_SHIFT) for _, rng in sections], sample.raw)
        raw = apply_to_sections(sample.raw, [index for index, _ in sections], lambda raw: raw * scale + shift)
        return replace(sample, raw=raw)


@dataclass(frozen=True)
class GaussianNoise:
    """Add Gaussian noise with a standard deviation from 0 to `max_std`, drawn for each patch."""

    max_std: float

    def __call__(self, sample: Sample, rngs: RNGs) -> Sample:
        raw = [patch + _noise(patch, rng, self.max_std) for patch, rng in zip(sample.raw, rngs, strict=True)]
        return replace(sample, raw=torch.stack(raw))


@dataclass(frozen=True)
class MissingSection:
    """Replace random sections by a uniform grey. Their labels stay: the neighbours show the tissue."""

    probability: float

    def __call__(self, sample: Sample, rngs: RNGs) -> Sample:
        depth = sample.raw.shape[1]
        sections = sample_sections(rngs, self.probability, depth)
        if depth == 1 or not sections:
            return sample
        greys = per_patch([rng.uniform(-_RANGE, _RANGE) for _, rng in sections], sample.raw)
        indices = [index for index, _ in sections]
        return replace(sample, raw=apply_to_sections(sample.raw, indices, lambda raw: greys.expand_as(raw).clone()))


def adjust_gamma(raw: Tensor, exponent: Tensor) -> Tensor:
    """Map grey values from -3..3 to 0..1, raise them to the exponent and map back; values beyond do not change.

    Continuous, and monotonic for every exponent above 0.

    >>> adjust_gamma(torch.tensor([-4.0, -3.0, 0.0, 3.0, 4.0]), torch.tensor(2.0)).tolist()
    [-4.0, -3.0, -1.5, 3.0, 4.0]
    """
    scaled = ((raw + _RANGE) / (2 * _RANGE)).clamp(0, 1)
    return raw + 2 * _RANGE * (scaled**exponent - scaled)


def _random_factor(rng: np.random.Generator, strength: float) -> float:
    """Draw from 1 - strength to its inverse, uniformly on a logarithmic scale."""
    return float((1 - strength) ** rng.uniform(-1, 1))


def _noise(patch: Tensor, rng: np.random.Generator, max_std: float) -> Tensor:
    std = rng.uniform(0, max_std)
    generator = torch.Generator(patch.device).manual_seed(int(rng.integers(2**63)))
    return torch.randn(patch.shape, generator=generator, device=patch.device) * std
