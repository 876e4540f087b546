"""Folds: dark lines along which a section is folded over itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, pi, sin
from typing import TYPE_CHECKING

import torch

from volseg.training.augmentation.resample import apply_to_sections, move_sections
from volseg.training.augmentation.rng import per_patch, sample_sections
from volseg.training.data.sample import IGNORED

if TYPE_CHECKING:
    import numpy as np

    from volseg.training.augmentation.rng import RNGs
    from volseg.training.data.sample import Sample

_WIDTH = (4.0, 14.0)
"""Range of the width of the dark band, in voxels."""
_SHIFT = (2.0, 10.0)
"""Range of the shift of both sides towards the line, in voxels: the tissue between is hidden in the fold."""
_DARKNESS = (1.5, 2.8)
"""Range of the band's grey value below the image's mean, in standard deviations."""
_CONTRAST = 0.4
"""Contrast of the tissue seen through the band."""


@dataclass(frozen=True)
class FoldLine:
    """A fold line across a section: a point (y, x) on it, its unit normal, width and shift in voxels, darkness."""

    point: tuple[float, float]
    normal: tuple[float, float]
    width: float
    shift: float
    darkness: float

    @classmethod
    def sample(cls, rng: np.random.Generator, shape: tuple[int, int]) -> FoldLine:
        """Draw a line through a random point of a section of shape (y, x), in a random direction."""
        point = (rng.uniform(0, shape[0] - 1), rng.uniform(0, shape[1] - 1))
        angle = rng.uniform(0, pi)
        width, shift, darkness = (rng.uniform(*bounds) for bounds in (_WIDTH, _SHIFT, _DARKNESS))
        return cls(point, (sin(angle), cos(angle)), width, shift, darkness)


@dataclass(frozen=True)
class Fold:
    """Add a fold to random sections.

    Labels and weights move with the raw image, by whole voxels; labels under the band become IGNORED.
    """

    probability: float

    def __call__(self, sample: Sample, rngs: RNGs) -> Sample:
        depth, height, width = sample.raw.shape[1:]
        sections = sample_sections(rngs, self.probability, depth)
        if not sections:
            return sample
        lines = [FoldLine.sample(rng, (height, width)) for _, rng in sections]
        return fold_sections(sample, [index for index, _ in sections], lines)


def fold_sections(sample: Sample, indices: list[int], lines: list[FoldLine]) -> Sample:
    """Fold sections, each along its line.

    Args:
        sample: a batch.
        indices: sections, each patch x depth + z.
        lines: one for each section.
    """
    rows = torch.arange(sample.raw.shape[-2], device=sample.raw.device).view(-1, 1)
    columns = torch.arange(sample.raw.shape[-1], device=sample.raw.device)
    values = [(*line.point, *line.normal, line.width / 2, line.shift, line.darkness) for line in lines]
    point_y, point_x, normal_y, normal_x, half_width, shift, darkness = (
        per_patch(column, sample.raw) for column in zip(*values, strict=True)
    )
    distance = (rows - point_y) * normal_y + (columns - point_x) * normal_x
    step = torch.where(distance < 0, -shift, shift)
    moved = move_sections(
        sample, indices, rows + (step * normal_y).round().long(), columns + (step * normal_x).round().long()
    )
    # One voxel of antialiasing between the band and the tissue.
    coverage = (half_width + 0.5 - distance.abs()).clamp(0, 1)
    raw = apply_to_sections(moved.raw, indices, lambda raw: raw + coverage * ((_CONTRAST - 1) * raw - darkness))
    labels = apply_to_sections(moved.labels, indices, lambda labels: labels.masked_fill(coverage > 0, IGNORED))
    return replace(moved, raw=raw, labels=labels)
