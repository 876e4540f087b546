"""What travels from the patches to the loss: a batch of samples, still whole and still integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -1
"""The label of voxels that are neither learned from nor scored."""


@dataclass(frozen=True)
class Sample:
    """A batch of patches, all of what the network sees; axes (N, z, y, x) throughout.

    A 2-D network sees one section (z = 1), or several as its channels; a 3-D network sees a box. Labels and weights
    cover the same voxels as the raw patch, so that whatever moves one moves all; what is scored is cut out last.

    Attributes:
        raw: normalised grey values, float32.
        labels: int32; for membrane 1 on membrane and 0 elsewhere, for affinities the patch's own ids from 1 and 0
            where there is no cell. `IGNORED` where nothing is known.
        weights: of each voxel in the loss, float32; None where all weigh the same.
        seeds: int64 (N,), one for each patch: it alone decides what chance does to that patch, whichever process,
            worker or batch it meets, so that a training resumed anywhere goes on as if it had never stopped.
    """

    raw: Tensor
    labels: Tensor
    weights: Tensor | None
    seeds: Tensor

    def to(self, device: str) -> Sample:
        """The same on another device; the seeds stay."""
        moved = (
            None if part is None else part.to(device, non_blocking=True)
            for part in (self.raw, self.labels, self.weights)
        )
        raw, labels, weights = moved
        assert raw is not None
        assert labels is not None
        return Sample(raw, labels, weights, self.seeds)
