"""Sharpness: slight blur of patches, and sections out of focus."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import torch

from volseg.training.augmentation.resample import apply_to_patches, apply_to_sections, reflect_indices
from volseg.training.augmentation.rng import sample_patches, sample_sections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from volseg.training.augmentation.rng import RNGs
    from volseg.training.data.sample import Sample

_DEFOCUS_SIGMA = (2.0, 4.0)
"""Range of sigma of a section out of focus, in voxels."""


@dataclass(frozen=True)
class GaussianBlur:
    """Blur patches within their sections, with sigma from 0 to `max_sigma` voxels."""

    probability: float
    max_sigma: float

    def __call__(self, sample: Sample, rngs: RNGs) -> Sample:
        indices = sample_patches(rngs, self.probability)
        if not indices:
            return sample
        sigmas = [rngs[patch].uniform(0, self.max_sigma) for patch in indices]
        raw = apply_to_patches(sample.raw, indices, lambda patches: gaussian_blur(patches, sigmas, self.max_sigma))
        return replace(sample, raw=raw)


@dataclass(frozen=True)
class Defocus:
    """Blur single sections much more than their neighbours."""

    probability: float

    def __call__(self, sample: Sample, rngs: RNGs) -> Sample:
        sections = sample_sections(rngs, self.probability, sample.raw.shape[1])
        if not sections:
            return sample
        sigmas = [rng.uniform(*_DEFOCUS_SIGMA) for _, rng in sections]
        indices = [index for index, _ in sections]
        raw = apply_to_sections(sample.raw, indices, lambda raw: gaussian_blur(raw, sigmas, _DEFOCUS_SIGMA[1]))
        return replace(sample, raw=raw)


def gaussian_blur(raw: Tensor, sigmas: Sequence[float], max_sigma: float) -> Tensor:
    """Blur along y and x, mirrored at the edge.

    Args:
        raw: (N, z, y, x).
        sigmas: one for each patch, in voxels.
        max_sigma: determines the length of the kernel. It is not max(sigmas): then a patch would depend on the others
            in its batch.
    """
    radius = ceil(3 * max_sigma)
    offsets = np.arange(-radius, radius + 1)
    densities = np.exp(-0.5 * (offsets / np.maximum(np.asarray(sigmas)[:, None], 1e-3)) ** 2)
    kernels = torch.from_numpy(densities / densities.sum(1, keepdims=True)).to(raw).view(-1, len(offsets), 1, 1, 1)
    for axis in (-2, -1):
        length = raw.shape[axis]
        indices = torch.arange(-radius, length + radius, device=raw.device)
        padded = raw.index_select(axis, reflect_indices(indices, length))
        # A sum of shifted images gives the same bits in any batch; a grouped convolution does not.
        total = kernels[:, 0] * padded.narrow(axis, 0, length)
        for shift in range(1, len(offsets)):
            total.addcmul_(kernels[:, shift].expand_as(raw), padded.narrow(axis, shift, length))
        raw = total
    return raw
