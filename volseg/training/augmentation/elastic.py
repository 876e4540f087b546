"""Elastic deformation: smooth random displacements.

All sections of a patch move alike, because annotated volumes are aligned. Misalignment is a separate augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import interpolate as resize

from volseg.training.augmentation.resample import apply_to_patches, flat_indices, gather_voxels, interpolate
from volseg.training.augmentation.rng import sample_patches
from volseg.training.data.sample import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from volseg.training.augmentation.rng import RNGs


@dataclass(frozen=True)
class ElasticTransform:
    """Deform random patches smoothly.

    U-Net: Gaussian displacements on a grid of 3 x 3 points (Ronneberger et al. 2015, section 3.1). FusionNet: a
    sparse field of 12 x 12 random vectors, zero at the edge (Quan et al. 2016).

    Attributes:
        probability: that a patch is deformed.
        points: along y and along x, from corner to corner of the patch.
        std: standard deviation of the displacements along y and along x, in voxels.
        fixed_border: the outermost points do not move.
    """

    probability: float
    points: int
    std: float
    fixed_border: bool

    def __call__(self, sample: Sample, rngs: RNGs) -> Sample:
        indices = sample_patches(rngs, self.probability)
        if not indices:
            return sample
        vectors = np.stack([self.sample_vectors(rngs[patch]) for patch in indices])
        displacement = upsample_displacement(torch.from_numpy(vectors).to(sample.raw), sample.raw.shape[-2:])
        return deform(sample, indices, displacement)

    def sample_vectors(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw the displacements of the points along y and x: (2, points, points)."""
        vectors = rng.normal(0, self.std, (2, self.points, self.points))
        if self.fixed_border:
            inner = vectors[:, 1:-1, 1:-1]
            return np.pad(inner, ((0, 0), (1, 1), (1, 1)))
        return vectors


def upsample_displacement(vectors: Tensor, shape: Sequence[int]) -> Tensor:
    """Interpolate the displacements of points (N, 2, points, points) to voxels (N, 2, y, x), bicubically."""
    for axis, length in ((-2, shape[0]), (-1, shape[1])):
        vectors = _resize_axis(vectors, axis, length)
    return vectors


def _resize_axis(values: Tensor, axis: int, length: int) -> Tensor:
    """Interpolate along one axis with the weight of each point in each voxel.

    A sum over points gives the same bits in any batch, and full precision on every device; a matrix product does not.
    """
    points = values.shape[axis]
    identity = torch.eye(points, device=values.device).view(1, points, points, 1)
    weights = resize(identity, (length, 1), mode="bicubic", align_corners=True)[0]
    along_axis = weights if axis == -2 else weights.transpose(-2, -1)
    total = along_axis[0] * values.narrow(axis, 0, 1)
    for point in range(1, points):
        total.addcmul_(along_axis[point], values.narrow(axis, point, 1))
    return total


def deform(sample: Sample, indices: Sequence[int], displacement: Tensor) -> Sample:
    """Take each voxel of some patches from `displacement` away: (n, 2, y, x), in voxels, for n patches.

    Raw is interpolated; labels and weights are those of the nearest voxel.
    """
    height, width = displacement.shape[-2:]
    rows = displacement[:, 0] + torch.arange(height, device=displacement.device).view(-1, 1)
    columns = displacement[:, 1] + torch.arange(width, device=displacement.device)
    source = flat_indices(rows.round().long().unsqueeze(1), columns.round().long().unsqueeze(1), (height, width))

    def nearest(tensor: Tensor) -> Tensor:
        return apply_to_patches(tensor, indices, lambda patches: gather_voxels(patches, source))

    return Sample(
        raw=apply_to_patches(sample.raw, indices, lambda patches: interpolate(patches, rows, columns)),
        labels=nearest(sample.labels),
        weights=None if sample.weights is None else nearest(sample.weights),
        seeds=sample.seeds,
    )
