"""A batch of patches on its way from the dataloader to the loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -1
"""Label of voxels that are neither trained on nor scored."""


@dataclass(frozen=True)
class Sample:
    """A batch of patches at the size of the network's input; all axes (N, z, y, x).

    A 2-D network sees one section (z = 1), or several as its channels; a 3-D network sees a box. Labels and weights
    cover the same voxels as raw, so that geometric augmentation moves them alike; they are cropped in the loss.

    Attributes:
        raw: normalised grey values, float32.
        labels: int32. Membrane: 1 on membrane, else 0. Affinities: ids of the patch from 1, 0 outside of cells.
            `IGNORED` marks unlabelled voxels.
        weights: loss weight of each voxel, float32; None for equal weights.
        seeds: int64 (N,). The augmentation of a patch depends on its seed only, not on process, worker or batch, so
            that a resumed training continues identically.
    """

    raw: Tensor
    labels: Tensor
    weights: Tensor | None
    seeds: Tensor

    def to(self, device: str) -> Sample:
        """Copy all tensors but the seeds to a device."""
        return replace(
            self,
            raw=self.raw.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            weights=None if self.weights is None else self.weights.to(device, non_blocking=True),
        )
