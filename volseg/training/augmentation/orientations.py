"""Random orientations: tissue has no preferred direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from volseg.inference import ORIENTATIONS
from volseg.training.augmentation.resample import apply_to_all

if TYPE_CHECKING:
    from torch import Tensor

    from volseg.training.augmentation.rng import RNGs
    from volseg.training.data.sample import Sample


@dataclass(frozen=True)
class RandomOrientation:
    """Turn and flip each patch: one of the eight orientations of the section, or of four flips if it is not square.

    Attributes:
        flip_z: also flip half of the patches along z.
    """

    flip_z: bool

    def __call__(self, sample: Sample, rngs: RNGs) -> Sample:
        height, width = sample.raw.shape[-2:]
        choices = ORIENTATIONS["all" if height == width else "flips"]
        orientations = [choices[rng.integers(len(choices))] for rng in rngs]
        flips = [self.flip_z and rng.random() < 0.5 for rng in rngs]

        def change(tensor: Tensor) -> Tensor:
            transformed = [orientation.apply(patch) for orientation, patch in zip(orientations, tensor, strict=True)]
            return torch.stack(
                [patch.flip(0) if flip else patch for patch, flip in zip(transformed, flips, strict=True)]
            )

        return apply_to_all(sample, change)
