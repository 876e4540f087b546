"""Folds: a section that lies double along a line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, pi, sin
from typing import TYPE_CHECKING

import torch

from volseg.training.augmentation.resample import changed_sections, fetch_sections
from volseg.training.augmentation.rng import per_patch, sample_sections
from volseg.training.data.sample import IGNORED

if TYPE_CHECKING:
    import numpy as np

    from volseg.training.augmentation.rng import RNGs
    from volseg.training.data.sample import Sample

_WIDTH = (4.0, 14.0)
"""Of the dark band, from and to, in voxels."""
_PULLED = (2.0, 10.0)
"""How far either side moves towards the line: what lay between is inside the fold. In voxels."""
_DARK = (1.5, 2.8)
"""How far below the image's mean the band is, in standard deviations."""
_SEEN = 0.4
"""Contrast of what shows through."""


@dataclass(frozen=True)
class Line:
    """A fold line across a section, in voxels: a point on it, its unit normal, and how it looks."""

    at: tuple[float, float]
    normal: tuple[float, float]
    width: float
    pulled: float
    dark: float

    @classmethod
    def drawn(cls, chance: np.random.Generator, shape: tuple[int, int]) -> Line:
        """A line through a point of the section of a shape (y, x), in any direction."""
        at = (chance.uniform(0, shape[0] - 1), chance.uniform(0, shape[1] - 1))
        angle = chance.uniform(0, pi)
        width, pulled, dark = (chance.uniform(*bounds) for bounds in (_WIDTH, _PULLED, _DARK))
        return cls(at, (sin(angle), cos(angle)), width, pulled, dark)


@dataclass(frozen=True)
class Fold:
    """Sections, by chance, with a dark fold line, to which the tissue on both sides is pulled.

    Labels and weights move with the raw image, by whole voxels; under the band labels are IGNORED: no one could tell.
    """

    share: float

    def __call__(self, sample: Sample, chances: RNGs) -> Sample:
        depth, height, width = sample.raw.shape[1:]
        met = sample_sections(chances, self.share, depth)
        if not met:
            return sample
        return folded(sample, [section for section, _ in met], [Line.drawn(c, (height, width)) for _, c in met])


def folded(sample: Sample, which: list[int], lines: list[Line]) -> Sample:
    """Sections folded, each along its line.

    Args:
        sample: a batch.
        which: the sections, counted through the patches (patch x depth + z).
        lines: one for each.
    """
    rows = torch.arange(sample.raw.shape[-2], device=sample.raw.device).view(-1, 1)
    columns = torch.arange(sample.raw.shape[-1], device=sample.raw.device)
    numbers = [(*line.at, *line.normal, line.width / 2, line.pulled, line.dark) for line in lines]
    at_y, at_x, normal_y, normal_x, half, pulled, dark = (
        per_patch(column, sample.raw) for column in zip(*numbers, strict=True)
    )
    distance = (rows - at_y) * normal_y + (columns - at_x) * normal_x
    step = torch.where(distance < 0, -pulled, pulled)
    moved = fetch_sections(
        sample, which, rows + (step * normal_y).round().long(), columns + (step * normal_x).round().long()
    )
    # The band's outline is antialiased: one voxel from the tissue's grey to its own.
    cover = (half + 0.5 - distance.abs()).clamp(0, 1)
    raw = changed_sections(moved.raw, which, lambda some: some + cover * ((_SEEN - 1) * some - dark))
    return replace(
        moved, raw=raw, labels=changed_sections(moved.labels, which, lambda some: some.masked_fill(cover > 0, IGNORED))
    )
