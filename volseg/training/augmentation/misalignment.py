"""Misalignment: the stack jumps between two sections, and goes on from there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from volseg.training.augmentation.resample import fetch_sections

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.training.augmentation.rng import RNGs
    from volseg.training.data.sample import Sample


@dataclass(frozen=True)
class Misalign:
    """Sections from which on the stack is shifted in y and x, by whole voxels; raw, labels and weights alike.

    Attributes:
        share: of the sections that have another before them.
        greatest: shift along y, and along x, in voxels; several jumps add up.
    """

    share: float
    greatest: float

    def __call__(self, sample: Sample, chances: RNGs) -> Sample:
        depth, height, width = sample.raw.shape[1:]
        shifts = np.concatenate([self.shifts(chance, depth) for chance in chances])
        which = np.flatnonzero(shifts.any(1)).tolist()
        if not which:
            return sample
        by = torch.from_numpy(shifts[which]).to(sample.raw.device).view(-1, 2, 1, 1, 1)
        rows = by[:, 0] + torch.arange(height, device=by.device).view(-1, 1)
        columns = by[:, 1] + torch.arange(width, device=by.device)
        return fetch_sections(sample, which, rows, columns)

    def shifts(self, chance: np.random.Generator, depth: int) -> NDArray[np.int64]:
        """How far each section of a stack is shifted along y and x: (depth, 2), the first not at all."""
        jumps = chance.random(depth) < self.share
        jumps[0] = False
        lengths = np.rint(chance.uniform(-self.greatest, self.greatest, (depth, 2))).astype(np.int64)
        return np.cumsum(lengths * jumps[:, None], axis=0)
