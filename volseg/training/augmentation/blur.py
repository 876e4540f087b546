"""How sharp an image is: a microscope that is a little off, and a section that is out of focus."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import torch

from volseg.training.augmentation.resample import changed, changed_sections, mirror_places
from volseg.training.augmentation.rng import sample_patches, sample_sections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from volseg.training.augmentation.rng import RNGs
    from volseg.training.data.sample import Sample

_DEFOCUS = (2.0, 4.0)
"""Sigma of a section out of focus, from and to, in voxels."""


@dataclass(frozen=True)
class Blur:
    """Gaussian blur of a patch within its sections, sigma from 0 to `greatest` voxels, by chance."""

    share: float
    greatest: float

    def __call__(self, sample: Sample, chances: RNGs) -> Sample:
        which = sample_patches(chances, self.share)
        if not which:
            return sample
        sigmas = [chances[patch].uniform(0, self.greatest) for patch in which]
        raw = changed(sample.raw, which, lambda some: blurred(some, sigmas, self.greatest))
        return replace(sample, raw=raw)


@dataclass(frozen=True)
class Defocus:
    """Sections, by chance, that are blurred much more than any neighbour."""

    share: float

    def __call__(self, sample: Sample, chances: RNGs) -> Sample:
        met = sample_sections(chances, self.share, sample.raw.shape[1])
        if not met:
            return sample
        sigmas = [chance.uniform(*_DEFOCUS) for _, chance in met]
        which = [section for section, _ in met]
        raw = changed_sections(sample.raw, which, lambda some: blurred(some, sigmas, _DEFOCUS[1]))
        return replace(sample, raw=raw)


def blurred(raw: Tensor, sigmas: Sequence[float], greatest: float) -> Tensor:
    """Gaussian blur along y and x, mirrored at the edge.

    Args:
        raw: (N, z, y, x).
        sigmas: one for each patch, in voxels.
        greatest: sigma that the kernel is long enough for. Not the greatest of `sigmas`: then a patch would depend on
            those beside it.
    """
    reach = ceil(3 * greatest)
    steps = np.arange(-reach, reach + 1)
    bells = np.exp(-0.5 * (steps / np.maximum(np.asarray(sigmas)[:, None], 1e-3)) ** 2)
    kernels = torch.from_numpy(bells / bells.sum(1, keepdims=True)).to(raw).view(-1, len(steps), 1, 1, 1)
    for axis in (-2, -1):
        length = raw.shape[axis]
        grown = raw.index_select(axis, mirror_places(torch.arange(-reach, length + reach, device=raw.device), length))
        # A sum of shifted images, not a grouped convolution: the same bits whatever the batch.
        summed = kernels[:, 0] * grown.narrow(axis, 0, length)
        for step in range(1, len(steps)):
            summed.addcmul_(kernels[:, step].expand_as(raw), grown.narrow(axis, step, length))
        raw = summed
    return raw
