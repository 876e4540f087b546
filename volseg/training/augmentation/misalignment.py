"""Misalignment: the stack is shifted from a section on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from volseg.training.augmentation.resample import move_sections

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.training.augmentation.rng import RNGs
    from volseg.training.data.sample import Sample


@dataclass(frozen=True)
class Misalignment:
    """Shift the stack in y and x from random sections on, by whole voxels: raw, labels and weights alike.

    Attributes:
        probability: of a shift at each section but the first.
        max_shift: along y and x, in voxels; successive shifts add up.
    """

    probability: float
    max_shift: float

    def __call__(self, sample: Sample, rngs: RNGs) -> Sample:
        depth, height, width = sample.raw.shape[1:]
        shifts = np.concatenate([self.sample_shifts(rng, depth) for rng in rngs])
        indices = np.flatnonzero(shifts.any(1)).tolist()
        if not indices:
            return sample
        shift = torch.from_numpy(shifts[indices]).to(sample.raw.device).view(-1, 2, 1, 1, 1)
        rows = shift[:, 0] + torch.arange(height, device=shift.device).view(-1, 1)
        columns = shift[:, 1] + torch.arange(width, device=shift.device)
        return move_sections(sample, indices, rows, columns)

    def sample_shifts(self, rng: np.random.Generator, depth: int) -> NDArray[np.int64]:
        """Draw the total shift of each section of a stack along y and x: (depth, 2); the first is 0."""
        jumps = rng.random(depth) < self.probability
        jumps[0] = False
        lengths = np.rint(rng.uniform(-self.max_shift, self.max_shift, (depth, 2))).astype(np.int64)
        return np.cumsum(lengths * jumps[:, None], axis=0)
