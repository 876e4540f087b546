"""Contingency tables: the number of voxels that segments of truth and proposal share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DENSE_FACTOR = 8
"""Ids below this multiple of the number of voxels are counted in a table; larger ones are sorted."""


@dataclass(frozen=True)
class Contingency:
    """Pairs of segments that overlap, each once; arrays (pairs,).

    Attributes:
        truth: id in the truth.
        proposal: id in the proposal.
        voxels: number of common voxels, int64.
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
        """The pairs within cells of the truth, whose ids are not 0."""
        cells = self.truth != 0
        return Contingency(self.truth[cells], self.proposal[cells], self.voxels[cells])

    def merge(self, other: Contingency) -> Contingency:
        """Add the table of other voxels."""
        return _aggregate(
            np.concatenate([self.truth, other.truth]),
            np.concatenate([self.proposal, other.proposal]),
            np.concatenate([self.voxels, other.voxels]),
        )


def contingency(truth: NDArray[Any], proposal: NDArray[Any]) -> Contingency:
    """Count the voxels that each pair of segments shares.

    Args:
        truth: ids, of any integer type and shape.
        proposal: ids of the same shape.

    >>> table = contingency(np.array([1, 1, 2]), np.array([7, 7, 7]))
    >>> table.truth.tolist(), table.proposal.tolist(), table.voxels.tolist()
    ([1, 2], [7, 7], [2, 1])
    """
    return _aggregate(truth.ravel(), proposal.ravel(), np.ones(truth.size, np.int64))


def _aggregate(truth: NDArray[Any], proposal: NDArray[Any], voxels: NDArray[np.int64]) -> Contingency:
    """Sum the voxels of equal pairs."""
    (truth_ids, rows), (proposal_ids, columns) = _relabel(truth), _relabel(proposal)
    keys, indices = _relabel(rows * len(proposal_ids) + columns)
    # bincount sums in float64, in which integers below 2^53 are exact.
    sums = np.bincount(indices, weights=voxels, minlength=len(keys)).astype(np.int64)
    rows, columns = np.divmod(keys, max(len(proposal_ids), 1))
    return Contingency(truth_ids[rows], proposal_ids[columns], sums)


def _relabel(ids: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Unique ids, ascending, and the index of each entry in them.

    Equals `numpy.unique`, but does not sort if ids are small, as those of components are.
    """
    if not ids.size:
        return ids, np.zeros(0, np.int64)
    if int(ids.min()) < 0 or int(ids.max()) >= _DENSE_FACTOR * ids.size:
        unique, indices = np.unique(ids, return_inverse=True)
        return unique, indices
    small = ids.astype(np.int64, copy=False)
    present = np.bincount(small) > 0
    return np.flatnonzero(present).astype(ids.dtype), (np.cumsum(present) - 1)[small]


def _sizes(ids: NDArray[Any], voxels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Voxels of each id, ascending, so that equal partitions sum to the same float."""
    unique, indices = _relabel(ids)
    return np.sort(np.bincount(indices, weights=voxels, minlength=len(unique)).astype(np.int64))
