"""The same tissue, turned and flipped: it has no up and down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from volseg.inference import ORIENTATIONS
from volseg.training.augmentation.resample import each_part

if TYPE_CHECKING:
    from torch import Tensor

    from volseg.training.augmentation.rng import RNGs
    from volseg.training.data.sample import Sample


@dataclass(frozen=True)
class Orient:
    """One of the eight orientations of the section, by chance; of the four flips where a patch is not square.

    Attributes:
        stack: half of the stacks are turned over, too (z flipped).
    """

    stack: bool

    def __call__(self, sample: Sample, chances: RNGs) -> Sample:
        height, width = sample.raw.shape[-2:]
        ways = ORIENTATIONS["all" if height == width else "flips"]
        turns = [ways[chance.integers(len(ways))] for chance in chances]
        over = [self.stack and chance.random() < 0.5 for chance in chances]

        def change(part: Tensor) -> Tensor:
            turned = [turn.turn(patch) for turn, patch in zip(turns, part, strict=True)]
            return torch.stack([patch.flip(0) if flip else patch for patch, flip in zip(turned, over, strict=True)])

        return each_part(sample, change)
