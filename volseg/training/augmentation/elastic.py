"""Elastic deformation: tissue that is stretched and squeezed a little is tissue still.

One deformation moves all sections of a patch alike. Sections are aligned to each other before anybody annotates them;
deformed each for itself they would be misaligned, which is another augmentation, with a key of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import interpolate as resize

from volseg.training.augmentation.resample import changed, interpolate, picked, places_of
from volseg.training.augmentation.rng import sample_patches
from volseg.training.data.sample import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from volseg.training.augmentation.rng import RNGs


@dataclass(frozen=True)
class Elastic:
    """Smooth deformation by chance.

    U-Net: Gaussian displacements on a grid of 3 x 3 points (Ronneberger et al. 2015, section 3.1). FusionNet: a
    sparse field of 12 x 12 random vectors, zero at the edge (Quan et al. 2016).

    Attributes:
        share: of the patches.
        points: along y, and along x, from corner to corner of the patch.
        std: standard deviation of the displacements along y and along x, in voxels.
        still_edge: the outermost points stay where they are.
    """

    share: float
    points: int
    std: float
    still_edge: bool

    def __call__(self, sample: Sample, chances: RNGs) -> Sample:
        which = sample_patches(chances, self.share)
        if not which:
            return sample
        vectors = np.stack([self.vectors(chances[patch]) for patch in which])
        return deformed(sample, which, spread(torch.from_numpy(vectors).to(sample.raw), sample.raw.shape[-2:]))

    def vectors(self, chance: np.random.Generator) -> NDArray[np.float64]:
        """The displacements of the points: (2, points, points), along y and along x."""
        drawn = chance.normal(0, self.std, (2, self.points, self.points))
        if self.still_edge:
            inner = np.zeros_like(drawn)
            inner[:, 1:-1, 1:-1] = drawn[:, 1:-1, 1:-1]
            return inner
        return drawn


def spread(vectors: Tensor, shape: Sequence[int]) -> Tensor:
    """Displacements of every voxel, (N, 2, y, x), from those of a few points, by bicubic interpolation."""
    for axis, length in ((-2, shape[0]), (-1, shape[1])):
        vectors = _stretched(vectors, axis, length)
    return vectors


def _stretched(values: Tensor, axis: int, length: int) -> Tensor:
    """Interpolate along one axis, by the weight of each point in each voxel.

    A sum over points, not a matrix product: the same bits whatever the batch, and full precision on every device.
    """
    points = values.shape[axis]
    alone = torch.eye(points, device=values.device).view(1, points, points, 1)
    weights = resize(alone, (length, 1), mode="bicubic", align_corners=True)[0]
    along = weights if axis == -2 else weights.transpose(-2, -1)
    stretched = along[0] * values.narrow(axis, 0, 1)
    for point in range(1, points):
        stretched.addcmul_(along[point], values.narrow(axis, point, 1))
    return stretched


def deformed(sample: Sample, which: Sequence[int], displacement: Tensor) -> Sample:
    """Some patches, each voxel fetched from `displacement` away: (n, 2, y, x), in voxels, for n patches.

    Raw is interpolated; labels and weights are those of the nearest voxel.
    """
    height, width = displacement.shape[-2:]
    rows = displacement[:, 0] + torch.arange(height, device=displacement.device).view(-1, 1)
    columns = displacement[:, 1] + torch.arange(width, device=displacement.device)
    places = places_of(rows.round().long().unsqueeze(1), columns.round().long().unsqueeze(1), (height, width))

    def nearest(part: Tensor) -> Tensor:
        return changed(part, which, lambda some: picked(some, places))

    return Sample(
        raw=changed(sample.raw, which, lambda some: interpolate(some, rows, columns)),
        labels=nearest(sample.labels),
        weights=None if sample.weights is None else nearest(sample.weights),
        seeds=sample.seeds,
    )
