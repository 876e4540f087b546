"""How alike two partitions are, from the sizes of their segments and of what these share.

Two families, one of pairs of voxels (Rand), one of information. Each has a part that a split cell lowers and a part
that a merger lowers (Arganda-Carreras et al., Front. Neuroanat. 9:142, 2015). In their notation s are the segments of
the proposal, t those of the truth, p what two of them share, all as shares of the voxels. Where a quotient is 0 / 0
nothing could be wrong, and it is 1.
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
    """How well a proposal agrees with a truth; 1 is perfect, 0 the worst.

    Attributes:
        split: what splitting cells leaves: the recall of pairs, or of information.
        merge: what merging cells leaves: their precision.
    """

    split: float
    merge: float

    @property
    def mean(self) -> float:
        """The harmonic mean of the two: V with alpha = 0.5."""
        return 2 * self.split * self.merge / (self.split + self.merge) if self.split + self.merge else 0.0


def rand_agreement(table: Contingency) -> Agreement:
    """V_rand's parts: sum p^2 / sum t^2 (split) and sum p^2 / sum s^2 (merge).

    The share of pairs of voxels of one cell that the proposal holds together, and of pairs that it holds together which
    are of one cell; a voxel is a pair with itself, as in the paper.
    """
    shared, truth, proposal = map(_squares, (table.shared_sizes, table.truth_sizes, table.proposal_sizes))
    return Agreement(_quotient(shared, truth), _quotient(shared, proposal))


def pair_agreement(table: Contingency) -> Agreement:
    """The same of pairs of two different voxels: recall (split) and precision (merge) of the adapted Rand error."""
    sizes = (table.shared_sizes, table.truth_sizes, table.proposal_sizes)
    shared, truth, proposal = (_squares(each) - table.total for each in sizes)
    return Agreement(_quotient(shared, truth), _quotient(shared, proposal))


def information_agreement(table: Contingency) -> Agreement:
    """V_info's parts: I(s, t) / H(s) (split) and I(s, t) / H(t) (merge), I being what one tells of the other.

    Computed as 1 - H(s | t) / H(s) and 1 - H(t | s) / H(t), which are exactly 1 where nothing was split, or merged.
    """
    truth, proposal = map(_entropy, (table.truth_sizes, table.proposal_sizes))
    split, merge = variation_of_information(table)
    return Agreement(1 - _quotient(split, proposal, 0.0), 1 - _quotient(merge, truth, 0.0))


def variation_of_information(table: Contingency) -> tuple[float, float]:
    """Bits that a split and a merged cell cost: H(s | t) and H(t | s) (Meila, J. Multivar. Anal. 98:873, 2007)."""
    shared, truth, proposal = map(_entropy, (table.shared_sizes, table.truth_sizes, table.proposal_sizes))
    return max(shared - truth, 0.0), max(shared - proposal, 0.0)


def rand_error(table: Contingency) -> float:
    """The share of pairs of voxels on which the two disagree: 1 - the Rand index (Rand, JASA 66:846, 1971).

    Symmetric. Most pairs are of two cells whatever is proposed, so that it is small for bad proposals too.
    """
    shared, truth, proposal = map(_squares, (table.shared_sizes, table.truth_sizes, table.proposal_sizes))
    pairs = float(table.total) * (table.total - 1)
    return max(truth + proposal - 2 * shared, 0.0) / pairs if pairs else 0.0


def _squares(sizes: NDArray[np.int64]) -> float:
    # int64 would overflow from 3e9 voxels of one cell.
    return float(np.sum(sizes.astype(np.float64) ** 2))


def _entropy(sizes: NDArray[np.int64]) -> float:
    """In bits."""
    shares = sizes / max(int(sizes.sum()), 1)
    return float(-np.sum(shares * np.log2(shares))) + 0.0


def _quotient(part: float, whole: float, empty: float = 1.0) -> float:
    # Rounding may leave a part a hair above its whole.
    return min(part / whole, 1.0) if whole else empty
