"""U-Net's weight maps of all training sections, computed once and kept."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import Box
from volseg.ops import read_reflected, weight_map
from volseg.storage import kept_array

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from volseg.storage import ArrayFile
    from volseg.training.data.volumes import LabelledVolume, Ranges

_STRETCH = 1024
_EDITION = 1
"""To be raised when weights are computed in another way, so that older ones are not taken."""
_GREATEST = 6e4
"""A class of hardly a voxel would weigh more; no step should follow so few."""
_HALF = 1e4
"""Weights of borders up to this are kept as float16, which rounds them by less than a thousandth."""


@dataclass(frozen=True)
class WeightMaps:
    """Weights of the training sections of a volume, one range after the other.

    Attributes:
        file: weights (sections, y, x).
        ranges: which sections of the volume they are.
    """

    file: ArrayFile
    ranges: Ranges

    def read(self, box: Box) -> NDArray[np.float32]:
        """Weights of a box of the volume that starts in a training range; mirrored where it leaves the section."""
        before = 0
        for first, stop in self.ranges:
            if first <= box.start[0] < stop:
                break
            before += stop - first
        start, behind = box.start[0] - first + before, box.stop[0] - first + before
        weights = read_reflected(self.file.array, (start, *box.start[1:]), (behind, *box.stop[1:]))
        return weights.astype(np.float32)


def weight_maps(
    volume: LabelledVolume, w0: float, sigma: float, on_section: Callable[[int, int], None] = lambda done, total: None
) -> WeightMaps:
    """The weight maps of a volume's training sections (`volseg.ops.weight_map`), from the cache where they are there.

    Args:
        volume: whose cells make the weights.
        w0: weight of thin borders.
        sigma: their width, in voxels.
        on_section: told how many sections are done, of how many, where they must be computed.

    Raises:
        SourceError: labels that cannot be read, or no room for the maps.
    """
    sections = [z for first, stop in volume.train for z in range(first, stop)]
    labels = f"{_digest(volume)} {volume.labels.dtype} {volume.shape} {volume.train} {volume.meaning}"
    key = f"{labels} {w0} {sigma} {_EDITION}"

    def sections_made() -> Iterator[NDArray[np.float32]]:
        for done, z in enumerate(sections, start=1):
            made = weight_map(volume.meaning.cells(volume.labels, z), w0=w0, sigma=sigma)
            yield np.minimum(made, _GREATEST)
            on_section(done, len(sections))

    shape = (len(sections), *volume.shape[1:])
    dtype = "float16" if w0 < _HALF else "float32"
    return WeightMaps(kept_array("weight-maps", key, shape, dtype, sections_made), volume.train)


def _digest(volume: LabelledVolume) -> str:
    """Of all labels of the training sections, read in boxes of whole chunks so that each is decoded once."""
    digest = blake2b(digest_size=16)
    for first, stop in volume.train:
        corners = (range(0, stop - first, volume.labels.chunk[0]), *(range(0, n, _STRETCH) for n in volume.shape[1:]))
        inside = volume.section_box(first, stop)
        for z, y, x in product(*corners):
            corner = (first + z, y, x)
            box = Box(corner, (corner[0] + volume.labels.chunk[0], y + _STRETCH, x + _STRETCH)).intersection(inside)
            digest.update(np.ascontiguousarray(volume.labels.read(box)).data)
    return digest.hexdigest()
