"""Similarity of two partitions, from the sizes of their segments and of the overlaps.

Two families, one of pairs of voxels (Rand), one of information. Each has a term that splits lower and a term that
mergers lower (Arganda-Carreras et al., Front. Neuroanat. 9:142, 2015). In their notation s are the segments of the
proposal, t those of the truth and p the overlaps, all as fractions of the voxels. A quotient 0 / 0 counts as 1, since
no error is possible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.evaluation.metrics.contingency import Contingency


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of a proposal with a truth, from 0 (worst) to 1 (perfect).

    Attributes:
        split: recall of pairs or of information; splits lower it.
        merge: precision of pairs or of information; mergers lower it.
    """

    split: float
    merge: float

    @property
    def mean(self) -> float:
        """The harmonic mean of the two: V with alpha = 0.5."""
        return 2 * self.split * self.merge / (self.split + self.merge) if self.split + self.merge else 0.0


def rand_agreement(table: Contingency) -> Agreement:
    """Terms of V_rand: sum p^2 / sum t^2 (split) and sum p^2 / sum s^2 (merge).

    The fraction of voxel pairs of one cell that are in one segment, and of pairs in one segment that are of one cell; a
    voxel forms a pair with itself, as in the paper.
    """
    shared, truth, proposal = map(_squares, (table.shared_sizes, table.truth_sizes, table.proposal_sizes))
    return Agreement(_quotient(shared, truth), _quotient(shared, proposal))


def pair_agreement(table: Contingency) -> Agreement:
    """As `rand_agreement` for pairs of different voxels: recall and precision of the adapted Rand error."""
    sizes = (table.shared_sizes, table.truth_sizes, table.proposal_sizes)
    shared, truth, proposal = (_squares(voxels) - table.total for voxels in sizes)
    return Agreement(_quotient(shared, truth), _quotient(shared, proposal))


def information_agreement(table: Contingency) -> Agreement:
    """Terms of V_info: I(s, t) / H(s) (split) and I(s, t) / H(t) (merge), with the mutual information I.

    Computed as 1 - H(s | t) / H(s) and 1 - H(t | s) / H(t), which are exactly 1 without splits or mergers.
    """
    truth, proposal = map(_entropy, (table.truth_sizes, table.proposal_sizes))
    split, merge = variation_of_information(table)
    return Agreement(1 - _quotient(split, proposal, 0.0), 1 - _quotient(merge, truth, 0.0))


def variation_of_information(table: Contingency) -> tuple[float, float]:
    """H(s | t) (split) and H(t | s) (merge) in bits (Meila, J. Multivar. Anal. 98:873, 2007)."""
    shared, truth, proposal = map(_entropy, (table.shared_sizes, table.truth_sizes, table.proposal_sizes))
    return max(shared - truth, 0.0), max(shared - proposal, 0.0)


def rand_error(table: Contingency) -> float:
    """Fraction of voxel pairs on which the partitions disagree: 1 - Rand index (Rand, JASA 66:846, 1971).

    Symmetric. Most pairs are of two cells in any proposal, so it is small for bad proposals too.
    """
    shared, truth, proposal = map(_squares, (table.shared_sizes, table.truth_sizes, table.proposal_sizes))
    pairs = float(table.total) * (table.total - 1)
    return max(truth + proposal - 2 * shared, 0.0) / pairs if pairs else 0.0


def _squares(sizes: NDArray[np.int64]) -> float:
    # int64 would overflow from 3e9 voxels of one cell.
    return float(np.sum(sizes.astype(np.float64) ** 2))


def _entropy(sizes: NDArray[np.int64]) -> float:
    """Entropy in bits."""
    fractions = sizes / max(int(sizes.sum()), 1)
    return float(-np.sum(fractions * np.log2(fractions))) + 0.0


def _quotient(part: float, whole: float, empty: float = 1.0) -> float:
    # Rounding may make a part slightly larger than its whole.
    return min(part / whole, 1.0) if whole else empty
