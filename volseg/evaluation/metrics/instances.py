"""Scores of instance segmentations in two or three dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

from volseg.errors import ConfigError
from volseg.evaluation.metrics.contingency import Contingency, contingency
from volseg.evaluation.metrics.partitions import pair_agreement, rand_error, variation_of_information

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class InstanceScores:
    """Scores of proposed ids; lower is better, except for precision and recall.

    All but `rand_error` are restricted to cells of the truth, whose ids are not 0; 0 is a normal id in the proposal.
    scikit-image with label 0 ignored returns the same, but swaps precision and recall.

    Attributes:
        adapted_rand_error: 1 - the harmonic mean of precision and recall; SNEMI3D's score.
        precision: fraction of voxel pairs with the same proposed id that are of the same cell; mergers lower it.
        recall: fraction of voxel pairs of the same cell that have the same proposed id; splits lower it.
        voi_split: conditional entropy H(proposal | truth) in bits.
        voi_merge: conditional entropy H(truth | proposal) in bits.
        cremi: sqrt(adapted Rand error * (voi_split + voi_merge)); CREMI's score.
        rand_error: fraction of all voxel pairs, id 0 included, on which proposal and truth disagree (1 - Rand index).
    """

    adapted_rand_error: float
    precision: float
    recall: float
    voi_split: float
    voi_merge: float
    cremi: float
    rand_error: float


class InstanceCounts:
    """Counts the voxels that proposed and true ids share, slab by slab; memory grows with the pairs of ids."""

    def __init__(self) -> None:
        self.table: Contingency | None = None

    def add(self, ids: NDArray[Any], truth_ids: NDArray[Any], ignored: NDArray[np.bool_] | None = None) -> None:
        """Count a slab; all arrays have its shape, of two or three axes.

        Args:
            ids: the proposal, of any integer type.
            truth_ids: 0 outside cells; voxels below 0 are ignored.
            ignored: mask of further voxels to ignore.

        Raises:
            ConfigError: shapes that differ, or ids that are not integers.
        """
        if ids.shape != truth_ids.shape:
            raise ConfigError(f"proposed ids {ids.shape} and true ids {truth_ids.shape} differ in shape")
        for name, array in (("proposed", ids), ("true", truth_ids)):
            if array.dtype.kind not in "iub":
                raise ConfigError(f"{name} ids are {array.dtype}; give them as integers")
        valid = truth_ids >= 0 if ignored is None else (truth_ids >= 0) & ~ignored
        table = contingency(truth_ids[valid], ids[valid])
        self.table = table if self.table is None else self.table.merge(table)

    @property
    def cells(self) -> int:
        """Number of true cells so far."""
        return 0 if self.table is None else len(self.table.foreground().truth_sizes)

    def scores(self) -> InstanceScores:
        """Compute the scores of all slabs so far.

        Raises:
            ConfigError: the truth has no cell.
        """
        if self.table is None or not self.cells:
            raise ConfigError("the truth holds no cell (no id above 0), so there is nothing to score; check its labels")
        cells = self.table.foreground()
        pairs, (split, merge) = pair_agreement(cells), variation_of_information(cells)
        error = 1 - pairs.mean
        return InstanceScores(
            adapted_rand_error=error,
            precision=pairs.merge,
            recall=pairs.split,
            voi_split=split,
            voi_merge=merge,
            cremi=sqrt(error * (split + merge)),
            rand_error=rand_error(self.table),
        )


def instance_scores(ids: NDArray[Any], truth_ids: NDArray[Any]) -> InstanceScores:
    """Score ids in memory.

    Args:
        ids: proposed ids (y, x) or (z, y, x), of any integer type.
        truth_ids: of the same shape; 0 outside cells, -1 for unlabelled voxels.

    Raises:
        ConfigError: shapes that differ, ids that are not integers, or a truth without cells.

    >>> import numpy as np
    >>> instance_scores(np.array([[5, 5, 6, 6]]), np.array([[1, 1, 2, 2]])).adapted_rand_error
    0.0
    """
    counts = InstanceCounts()
    counts.add(ids, truth_ids)
    return counts.scores()
