"""What the values of a label volume mean, and the cells that they tell apart."""

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

_SPARSE = 8
"""Ids up to so many times the voxels are told apart by a table, which is ten times faster than sorting them."""


@dataclass(frozen=True)
class LabelMeaning:
    """How stored values become labels.

    Attributes:
        kind: `membrane`: labels are 1 on membrane and 0 elsewhere; `affinities`: they are ids.
        membrane: which stored values are membrane: 0, all others, the boundaries of ids, or large probabilities.
        width: of those boundaries, in voxels of the section.
        ignore: the stored value of voxels of which nothing is known; None where there is none.
        sure: probabilities up to which a voxel is taken for no membrane, and from which on for membrane.
    """

    kind: Literal["membrane", "affinities"] = "membrane"
    membrane: Literal["zero", "nonzero", "boundaries", "probability"] = "zero"
    width: int = 2
    ignore: int | None = None
    sure: tuple[float, float] = (0.3, 0.7)

    @property
    def of_ids(self) -> bool:
        """Whether the stored values must be ids of cells, rather than a mask."""
        return self.kind == "affinities" or self.membrane == "boundaries"

    def read(self, labels: Readable, box: Box) -> NDArray[np.int32]:
        """The labels of a box, mirrored where it leaves the volume, in the meaning of `Sample.labels`."""
        if self.kind == "affinities":
            return local_ids(labels.read(box), self.ignore)
        if self.membrane == "boundaries":
            # A border that lies just outside the box widens into it.
            ids = local_ids(labels.read(box.grown((0, self.width, self.width))), self.ignore)
            inner = np.s_[:, self.width : -self.width, self.width : -self.width]
            drawn: NDArray[np.int32] = np.where(ids < 0, IGNORED, boundaries(ids, self.width)).astype(np.int32)
            return drawn[inner]
        stored = labels.read(box)
        if self.membrane == "probability":
            low, high = (255 * share for share in self.sure)
            unsure = self._ignored(stored) | ((stored > low) & (stored < high))
            return np.where(unsure, IGNORED, stored >= high).astype(np.int32)
        marked = stored == 0 if self.membrane == "zero" else stored != 0
        return np.where(self._ignored(stored), IGNORED, marked).astype(np.int32)

    def known(self, labels: Readable, box: Box) -> NDArray[Any]:
        """The values that tell the classes apart, of the voxels of a box that are not ignored; one axis.

        Stored ids for affinities, as local ones would differ from box to box; else 0 and 1.
        """
        if self.kind == "affinities":
            stored = labels.read(box)
            known: NDArray[Any] = stored[~self._ignored(stored)]
            return known
        read = self.read(labels, box)
        told: NDArray[Any] = read[read != IGNORED]
        return told

    def cells(self, labels: Readable, section: int) -> NDArray[np.int32]:
        """The cells of a section told apart: ids from 1 on, 0 on membrane, `IGNORED` where nothing is known; (y, x).

        They are 4-connected components: of voxels of equal id, so that ids that touch stay apart, or of what is not
        membrane where labels are a mask of it.
        """
        box = Box((section, 0, 0), (section + 1, *labels.shape[1:]))
        read = self.read(labels, box)[0]
        if self.kind == "membrane" and self.membrane in ("nonzero", "probability"):
            alike = (read == 0).astype(np.int32)
        else:
            alike = np.maximum(local_ids(labels.read(box), self.ignore)[0], 0)
        parts: NDArray[np.int32] = label(alike, background=0, connectivity=1).astype(np.int32)  # type: ignore[no-untyped-call]
        if self.kind == "membrane":
            parts[read == 1] = 0
        parts[read == IGNORED] = IGNORED
        return parts

    def _ignored(self, stored: NDArray[Any]) -> NDArray[np.bool_]:
        return np.zeros(stored.shape, bool) if self.ignore is None else stored == self.ignore


def local_ids(stored: NDArray[Any], ignore: int | None = None) -> NDArray[np.int32]:
    """Ids of any size made 1, 2, 3 .. in their order; 0 stays, and `ignore` becomes `IGNORED`.

    >>> local_ids(np.array([0, 2**63, 7, 255], np.uint64), ignore=255).tolist()
    [0, 2, 1, -1]
    """
    ignored = None if ignore is None else stored == ignore
    kept = stored if ignored is None else np.where(ignored, stored.dtype.type(0), stored)
    if kept.min() >= 0 and kept.max() < _SPARSE * kept.size:
        present = np.zeros(int(kept.max()) + 1, np.int32)
        present[kept] = 1
        present[0] = 0
        result: NDArray[np.int32] = np.cumsum(present, dtype=np.int32)[kept]
        result[kept == 0] = 0
    else:
        values, places = np.unique(kept, return_inverse=True)
        numbers = np.zeros(len(values), np.int32)
        numbers[values != 0] = np.arange(1, np.count_nonzero(values) + 1, dtype=np.int32)
        result = numbers[places].reshape(stored.shape)
    if ignored is not None:
        result[ignored] = IGNORED
    return result
