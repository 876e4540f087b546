"""Which segments of a truth and of a proposal share voxels, and how many: all that comparing partitions needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DENSE = 8
"""Ids up to so many times the number of voxels are counted in a table; others are sorted."""


@dataclass(frozen=True)
class Contingency:
    """The pairs of segments that overlap; three arrays (pairs,) that belong together, no pair twice.

    Attributes:
        truth: the id that a pair has in the truth.
        proposal: the id that it has in the proposal.
        voxels: how many voxels have both, int64.
    """

    truth: NDArray[Any]
    proposal: NDArray[Any]
    voxels: NDArray[np.int64]

    @property
    def total(self) -> int:
        """Voxels of all pairs."""
        return int(self.voxels.sum())

    @property
    def truth_sizes(self) -> NDArray[np.int64]:
        """Voxels of each segment of the truth, ascending."""
        return _sizes(self.truth, self.voxels)

    @property
    def proposal_sizes(self) -> NDArray[np.int64]:
        """Voxels of each segment of the proposal, ascending."""
        return _sizes(self.proposal, self.voxels)

    @property
    def shared_sizes(self) -> NDArray[np.int64]:
        """Voxels of each pair, ascending."""
        return np.sort(self.voxels)

    def foreground(self) -> Contingency:
        """The pairs within cells of the truth: those whose id there is not 0."""
        inside = self.truth != 0
        return Contingency(self.truth[inside], self.proposal[inside], self.voxels[inside])

    def merged(self, other: Contingency) -> Contingency:
        """This table and that of other voxels, as one."""
        return _added_up(
            np.concatenate([self.truth, other.truth]),
            np.concatenate([self.proposal, other.proposal]),
            np.concatenate([self.voxels, other.voxels]),
        )


def contingency(truth: NDArray[Any], proposal: NDArray[Any]) -> Contingency:
    """Count the voxels that each two segments share.

    Args:
        truth: ids, of any integer type and shape.
        proposal: ids of the same shape.

    >>> table = contingency(np.array([1, 1, 2]), np.array([7, 7, 7]))
    >>> table.truth.tolist(), table.proposal.tolist(), table.voxels.tolist()
    ([1, 2], [7, 7], [2, 1])
    """
    return _added_up(truth.ravel(), proposal.ravel(), np.ones(truth.size, np.int64))


def _added_up(truth: NDArray[Any], proposal: NDArray[Any], voxels: NDArray[np.int64]) -> Contingency:
    """One entry for each pair, with the voxels of all its entries."""
    (truth_ids, rows), (proposal_ids, columns) = _numbered(truth), _numbered(proposal)
    keys, places = _numbered(rows * len(proposal_ids) + columns)
    # Sums of whole numbers below 2^53 are exact in float64, which is what bincount adds in.
    summed = np.bincount(places, weights=voxels, minlength=len(keys)).astype(np.int64)
    rows, columns = np.divmod(keys, max(len(proposal_ids), 1))
    return Contingency(truth_ids[rows], proposal_ids[columns], summed)


def _numbered(ids: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The ids that occur, ascending, and the number of each entry's among them; both (n,).

    The same as `numpy.unique`, but without sorting where ids are small, as those of components are.
    """
    if not ids.size:
        return ids, np.zeros(0, np.int64)
    if int(ids.min()) < 0 or int(ids.max()) >= _DENSE * ids.size:
        found, places = np.unique(ids, return_inverse=True)
        return found, places
    small = ids.astype(np.int64, copy=False)
    there = np.bincount(small) > 0
    return np.flatnonzero(there).astype(ids.dtype), (np.cumsum(there) - 1)[small]


def _sizes(ids: NDArray[Any], voxels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Voxels of each id. Ascending, so that partitions that are alike add up to the same float."""
    found, places = _numbered(ids)
    return np.sort(np.bincount(places, weights=voxels, minlength=len(found)).astype(np.int64))
