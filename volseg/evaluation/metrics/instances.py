"""Scores of cells that carry ids, in two or three dimensions."""

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
    """How well proposed ids part the cells of a truth; lower is better but for precision and recall.

    All but the plain Rand error look at the cells of the truth only, its ids other than 0; a 0 of the proposal is an id
    like any other. With label 0 ignored scikit-image gives the same, but for precision and recall, which it swaps.

    Attributes:
        adapted_rand_error: 1 - the harmonic mean of precision and recall; SNEMI3D's score.
        precision: share of pairs of voxels with one proposed id that are of one cell; mergers lower it.
        recall: share of pairs of voxels of one cell that have one proposed id; splits lower it.
        voi_split: bits by which a cell falls apart, H(proposal | truth).
        voi_merge: bits by which a proposed id mixes cells, H(truth | proposal).
        cremi: sqrt(adapted Rand error * (voi_split + voi_merge)); CREMI's score.
        rand_error: share of all pairs of voxels, 0 included, on which the two disagree (1 - the Rand index).
    """

    adapted_rand_error: float
    precision: float
    recall: float
    voi_split: float
    voi_merge: float
    cremi: float
    rand_error: float


class InstanceCounts:
    """Voxels that proposed and true ids share, counted slab by slab; memory holds a number for each pair of ids."""

    def __init__(self) -> None:
        self.table: Contingency | None = None

    def add(self, ids: NDArray[Any], truth_ids: NDArray[Any], ignored: NDArray[np.bool_] | None = None) -> None:
        """Count a slab; all arrays have its shape, of two or three axes.

        Args:
            ids: the proposal, of any integer type.
            truth_ids: 0 where there is no cell; voxels below 0 are ignored.
            ignored: further voxels that count for nothing.

        Raises:
            ConfigError: shapes that differ, or ids that are no whole numbers.
        """
        if ids.shape != truth_ids.shape:
            raise ConfigError(f"proposed ids {ids.shape} and true ids {truth_ids.shape} differ in shape")
        for name, array in (("proposed", ids), ("true", truth_ids)):
            if array.dtype.kind not in "iub":
                raise ConfigError(f"{name} ids are {array.dtype}; give them as integers")
        known = truth_ids >= 0 if ignored is None else (truth_ids >= 0) & ~ignored
        found = contingency(truth_ids[known], ids[known])
        self.table = found if self.table is None else self.table.merged(found)

    @property
    def cells(self) -> int:
        """True cells that were met."""
        return 0 if self.table is None else len(self.table.foreground().truth_sizes)

    def scores(self) -> InstanceScores:
        """Scores of all that was counted.

        Raises:
            ConfigError: the truth held no cell.
        """
        if self.table is None or not self.cells:
            raise ConfigError("the truth holds no cell (no id above 0), so there is nothing to score; check its labels")
        inside = self.table.foreground()
        pairs, (split, merge) = pair_agreement(inside), variation_of_information(inside)
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
    """Scores of ids that are in memory as a whole.

    Args:
        ids: proposed ids (y, x) or (z, y, x), of any integer type.
        truth_ids: of the same shape; 0 where there is no cell, -1 where nothing is known.

    Raises:
        ConfigError: shapes that differ, ids that are no whole numbers, or a truth without cells.

    >>> import numpy as np
    >>> instance_scores(np.array([[5, 5, 6, 6]]), np.array([[1, 1, 2, 2]])).adapted_rand_error
    0.0
    """
    counts = InstanceCounts()
    counts.add(ids, truth_ids)
    return counts.scores()
