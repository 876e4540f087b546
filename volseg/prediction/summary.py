"""The result of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Result of a run.

    Attributes:
        target: path of the map.
        blocks: of the run in all.
        already_done: blocks done before this start.
        done: blocks done in this start, including empty ones.
        skipped: number of blocks that were not computed, in this start or an earlier one, by reason: `empty`, or
            `outside the mask` (these do not count as done).
        failed: block numbers with the reason of each.
        chunks: of the source, a Zarr, that the run reads; 0 if it is none.
        chunks_checked: of these, how many were looked for before the first block.
        chunks_absent: of the checked ones, how many the source lacked; they read as the fill value.
        lacking: blocks, in this start or an earlier one, that read chunks which the source lacked.
        unexplained: of these, how many read chunks that neither a listing of the store nor the user said to be missing.
        all_empty: whether every block of the run was empty, so that the map is 0 everywhere.
        levels: number of coarser levels.
        coarser_left: blocks of coarser levels that could not be made, because blocks failed that they are made of.
        voxels: written in this start, at level 0.
        seconds: from the first block sent to the last completed.
        read_amplification: how often a chunk of the source is decoded, if no block is skipped.
        workers: number of blocks that each worker did.
        busy: fraction of its time that each worker spent in forward passes, from its first finished block on.
        peak_in_flight: maximum number of blocks sent and not completed.
        part: of the run, K/N, of which the counts of blocks are; None for the whole.
        left: blocks of other parts that are not done.
        repeats: requests to the target's object store that were repeated, because it was busy, failed or did not
            answer.
    """

    target: str
    blocks: int
    already_done: int
    done: int
    skipped: dict[str, int]
    failed: dict[int, str]
    chunks: int
    chunks_checked: int
    chunks_absent: int
    lacking: int
    unexplained: int
    all_empty: bool
    levels: int
    coarser_left: int
    voxels: int
    seconds: float
    read_amplification: float
    workers: dict[str, int]
    busy: dict[str, float]
    peak_in_flight: int
    part: str | None = None
    left: int = 0
    repeats: int = 0
