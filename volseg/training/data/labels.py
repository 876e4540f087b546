"""Conversion of stored label values to training labels and connected cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from skimage.measure import label

from volseg.blocks import Box
from volseg.ops import boundaries
from volseg.training.data.sample import IGNORED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.storage import Readable

_MAX_TABLE_RATIO = 8
"""Ids below this many times the voxel count are renumbered with a lookup table, ten times faster than by sorting."""


@dataclass(frozen=True)
class LabelEncoding:
    """Meaning of stored label values.

    Attributes:
        kind: `membrane`: labels are 1 on membrane and 0 elsewhere; `affinities`: labels are ids.
        membrane: stored values of membrane: 0, any other value, borders of ids, or high probabilities.
        boundary_width: width of these borders, in voxels of the section.
        ignore: stored value of unlabelled voxels; None if there is none.
        probability_thresholds: probability up to which a voxel is background, and from which it is membrane.
    """

    kind: Literal["membrane", "affinities"] = "membrane"
    membrane: Literal["zero", "nonzero", "boundaries", "probability"] = "zero"
    boundary_width: int = 2
    ignore: int | None = None
    probability_thresholds: tuple[float, float] = (0.3, 0.7)

    @property
    def requires_ids(self) -> bool:
        """Whether the stored values must be ids of cells rather than a mask."""
        return self.kind == "affinities" or self.membrane == "boundaries"

    def read(self, labels: Readable, box: Box) -> NDArray[np.int32]:
        """Read the labels of a box as in `Sample.labels`, mirrored outside of the volume."""
        if self.kind == "affinities":
            return relabel_sequential(labels.read(box), self.ignore)
        if self.membrane == "boundaries":
            # A border just outside of the box reaches into it.
            width = self.boundary_width
            ids = relabel_sequential(labels.read(box.grow((0, width, width))), self.ignore)
            membrane: NDArray[np.int32] = np.where(ids < 0, IGNORED, boundaries(ids, width)).astype(np.int32)
            return membrane[:, width:-width, width:-width]
        stored = labels.read(box)
        if self.membrane == "probability":
            low, high = (255 * threshold for threshold in self.probability_thresholds)
            ignored = self._is_ignored(stored) | ((stored > low) & (stored < high))
            return np.where(ignored, IGNORED, stored >= high).astype(np.int32)
        is_membrane = stored == 0 if self.membrane == "zero" else stored != 0
        return np.where(self._is_ignored(stored), IGNORED, is_membrane).astype(np.int32)

    def class_values(self, labels: Readable, box: Box) -> NDArray[Any]:
        """Read the values that distinguish classes in a box, without ignored voxels; 1-D.

        For affinities these are stored ids, because relabelled ids differ between boxes; else 0 and 1.
        """
        if self.kind == "affinities":
            stored = labels.read(box)
            ids: NDArray[Any] = stored[~self._is_ignored(stored)]
            return ids
        read = self.read(labels, box)
        values: NDArray[Any] = read[read != IGNORED]
        return values

    def connected_cells(self, labels: Readable, section: int) -> NDArray[np.int32]:
        """Label the cells of a section: ids from 1, 0 on membrane, `IGNORED` on unlabelled voxels; (y, x).

        Cells are 4-connected components: of voxels with equal ids, or of non-membrane if labels are a mask of it.
        """
        box = Box((section, 0, 0), (section + 1, *labels.shape[1:]))
        read = self.read(labels, box)[0]
        if self.kind == "membrane" and self.membrane in ("nonzero", "probability"):
            ids = (read == 0).astype(np.int32)
        else:
            ids = np.maximum(relabel_sequential(labels.read(box), self.ignore)[0], 0)
        cells: NDArray[np.int32] = label(ids, background=0, connectivity=1).astype(np.int32)  # type: ignore[no-untyped-call]
        if self.kind == "membrane":
            cells[read == 1] = 0
        cells[read == IGNORED] = IGNORED
        return cells

    def _is_ignored(self, stored: NDArray[Any]) -> NDArray[np.bool_]:
        return is_ignored(stored, self.ignore)


def is_ignored(stored: NDArray[Any], ignore: int | None) -> NDArray[np.bool_]:
    """Whether each stored value is no label: one below 0, or `ignore`.

    >>> is_ignored(np.array([-1, 0, 255]), 255).tolist()
    [True, False, True]
    """
    ignored = stored < 0 if stored.dtype.kind == "i" else np.zeros(stored.shape, bool)
    return ignored if ignore is None else ignored | (stored == ignore)


def relabel_sequential(stored: NDArray[Any], ignore: int | None = None) -> NDArray[np.int32]:
    """Renumber ids of any size as 1, 2, 3 .. in ascending order; 0 stays; `ignore` and ids below 0 become `IGNORED`.

    >>> relabel_sequential(np.array([0, 2**63, 7, 255], np.uint64), ignore=255).tolist()
    [0, 2, 1, -1]
    """
    stored = stored.astype(np.uint8) if stored.dtype == bool else stored
    ignored = is_ignored(stored, ignore)
    ids = np.where(ignored, stored.dtype.type(0), stored) if ignored.any() else stored
    if ids.max() < _MAX_TABLE_RATIO * ids.size:
        present = np.zeros(int(ids.max()) + 1, np.int32)
        present[ids] = 1
        present[0] = 0
        result: NDArray[np.int32] = np.cumsum(present, dtype=np.int32)[ids]
        result[ids == 0] = 0
    else:
        values, inverse = np.unique(ids, return_inverse=True)
        numbers = np.zeros(len(values), np.int32)
        numbers[values != 0] = np.arange(1, np.count_nonzero(values) + 1, dtype=np.int32)
        result = numbers[inverse].reshape(stored.shape)
    result[ignored] = IGNORED
    return result
