"""Weight maps of the U-Net paper for all training sections, computed once and cached on disk."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import Box
from volseg.ops import read_reflected, weight_map
from volseg.storage import cached_memmap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from volseg.storage import MemmapFile
    from volseg.training.data.volumes import LabelledVolume, Ranges

_TILE = 1024
_CACHE_VERSION = 1
"""Raise it if weights are computed differently, so that cached maps are not used."""
_MAX_WEIGHT = 6e4
"""Limits the weight of a class with very few voxels."""
_MAX_FLOAT16_W0 = 1e4
"""Up to this w0 maps are stored as float16, which rounds them by less than a thousandth."""


@dataclass(frozen=True)
class WeightMaps:
    """Weights of the training sections of a volume, one range after the other.

    Attributes:
        file: weights (sections, y, x).
        ranges: sections of the volume that they belong to.
    """

    file: MemmapFile
    ranges: Ranges

    def read(self, box: Box) -> NDArray[np.float32]:
        """Read the weights of a box that starts within a training range; mirrored outside of the section."""
        offset = 0
        for first, stop in self.ranges:
            if first <= box.start[0] < stop:
                break
            offset += stop - first
        start, end = box.start[0] - first + offset, box.stop[0] - first + offset
        weights = read_reflected(self.file.array, (start, *box.start[1:]), (end, *box.stop[1:]))
        return weights.astype(np.float32)


def weight_maps(
    volume: LabelledVolume, w0: float, sigma: float, on_section: Callable[[int, int], None] = lambda done, total: None
) -> WeightMaps:
    """Compute the weight maps of a volume's training sections (`volseg.ops.weight_map`), or take them from the cache.

    Args:
        volume: with labels.
        w0: weight of thin borders.
        sigma: width of these borders, in voxels.
        on_section: called with the number of sections done and their total, unless the maps are cached.

    Raises:
        SourceError: labels cannot be read, or there is no room for the maps.
    """
    sections = [z for first, stop in volume.train for z in range(first, stop)]
    labels = f"{_digest(volume)} {volume.labels.dtype} {volume.shape} {volume.train} {volume.encoding}"
    key = f"{labels} {w0} {sigma} {_CACHE_VERSION}"

    def compute_sections() -> Iterator[NDArray[np.float32]]:
        for done, z in enumerate(sections, start=1):
            weights = weight_map(volume.encoding.connected_cells(volume.labels, z), w0=w0, sigma=sigma)
            yield np.minimum(weights, _MAX_WEIGHT)
            on_section(done, len(sections))

    shape = (len(sections), *volume.shape[1:])
    dtype = "float16" if w0 < _MAX_FLOAT16_W0 else "float32"
    return WeightMaps(cached_memmap("weight-maps", key, shape, dtype, compute_sections), volume.train)


def _digest(volume: LabelledVolume) -> str:
    """Digest all labels of the training sections, read in boxes of whole chunks so that each is decoded once."""
    digest = blake2b(digest_size=16)
    depth = volume.labels.chunk[0]
    for first, stop in volume.train:
        corners = (range(first, stop, depth), *(range(0, n, _TILE) for n in volume.shape[1:]))
        for z, y, x in product(*corners):
            box = Box((z, y, x), (z + depth, y + _TILE, x + _TILE)).intersection(volume.section_box(first, stop))
            digest.update(np.ascontiguousarray(volume.labels.read(box)).data)
    return digest.hexdigest()
