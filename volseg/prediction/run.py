"""A prediction run, from what the user asked for to a finished target.

options -> source, model card -> plan (refusals) -> cluster -> worker's facts -> run record -> target
-> blocks that are neither done nor outside the mask -> marks -> summary
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from volseg.blocks import Tiling, read_amplification
from volseg.cluster import Cluster, Outcome, Progress, connect, run_blocks, visible_gpus
from volseg.pipeline import EMPTY
from volseg.plots.curves import save_halo_curve
from volseg.prediction.autotune.halo import halo_lines
from volseg.prediction.resolve import resolve_run
from volseg.prediction.resume import done_blocks
from volseg.prediction.worker import RunRef, compute_block
from volseg.storage import (
    OUTSIDE,
    Journal,
    Mark,
    RunRecord,
    create_target,
    open_target,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from volseg.pipeline import BlockReport
    from volseg.prediction.prepare import RunSpec


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        target: where the probabilities are.
        blocks: of the run in all.
        already_done: of these, done before this start.
        done: done now, those that were found empty among them.
        skipped: blocks for which nothing was computed, in this start or one before, by the reason why: `empty` or
            `outside the mask`; the latter are never done.
        failed: block numbers with the reason each failed for.
        voxels: written now.
        seconds: from the first block sent to the last that came back.
        read_amplification: how often the run decodes a chunk of the source, were no block skipped.
        workers: blocks done by each worker.
        busy: share of its time that each worker spent in forward passes, from its first finished block on.
        peak_in_flight: the most blocks that were sent and not yet back.
    """

    target: str
    blocks: int
    already_done: int
    done: int
    skipped: dict[str, int]
    failed: dict[int, str]
    voxels: int
    seconds: float
    read_amplification: float
    workers: dict[str, int]
    busy: dict[str, float]
    peak_in_flight: int


def execute(prepared: RunSpec, progress: Progress, numbers: Iterable[int] | None = None) -> Summary:
    """Run a prepared run to its end.

    Args:
        prepared: the run.
        progress: shows how far it is.
        numbers: the order of blocks; ascending by default.

    Raises:
        VolsegError: the cluster, the memory or the target refused, or another run was recorded.
    """
    config = prepared.config
    with connect(config.cluster, config.workers, visible_gpus(config.device)) as cluster:
        record = resolve_run(prepared, cluster, progress)
        path = prepared.target
        if prepared.recorded is None:
            create_target(path, record, prepared.volume.voxel_nm or prepared.models[0].card.voxel_nm)
            _draw_halos(record, progress, path)
        files = tuple(model.path for model in prepared.models)
        ticket = RunRef(str(path), record.digest, prepared.volume.location, files)
        order = record.grid.numbers() if numbers is None else numbers
        return _run(cluster, prepared, record, ticket, progress, order)


def _draw_halos(record: RunRecord, progress: Progress, path: Path) -> None:
    """Show what a measured halo was chosen by, as a table and as a picture in the target."""
    for number, entry in enumerate(record.models):
        if not entry.halo_curve:
            continue
        progress.note("\n".join(halo_lines(entry)))
        picture = open_target(path).journal / f"halo-{number}.png"
        picture.parent.mkdir(exist_ok=True)
        computed = [Tiling(entry.footprint, entry.tile, each.halo).overhead for each in entry.halo_curve]
        rows = [(p.halo, p.greatest, p.share, cost) for p, cost in zip(entry.halo_curve, computed, strict=True)]
        save_halo_curve(picture, rows, entry.halo, title=f"halo of {entry.name}")
        progress.note(f"the curve is drawn in {picture}")


def _run(
    cluster: Cluster,
    prepared: RunSpec,
    record: RunRecord,
    ticket: RunRef,
    progress: Progress,
    numbers: Iterable[int],
) -> Summary:
    folder, grid, mask = open_target(prepared.target).journal, record.grid, prepared.mask
    planned = mask.count if mask else grid.count
    with Journal(folder) as journal:
        done, empty = done_blocks(folder)
        voxels, workers = 0, Counter[str]()

        def on_done(report: BlockReport, attempt: int, worker: str) -> None:
            nonlocal voxels, empty
            seconds = round(report.seconds, 3)
            journal.mark(Mark(report.number, report.digest, attempt, worker, seconds, report.skipped))
            voxels += report.voxels
            empty += report.skipped == EMPTY
            workers[worker] += 1

        progress.begin(planned - len(done))
        started = time.perf_counter()
        todo = (number for number in numbers if number not in done and (mask is None or number in mask))
        outcome: Outcome = run_blocks(cluster, todo, partial(compute_block, ticket=ticket), on_done, progress)
    tilings = [entry.tiling for entry in record.models]
    return Summary(
        target=ticket.target,
        blocks=grid.count,
        already_done=len(done),
        done=outcome.done,
        skipped={EMPTY: empty, OUTSIDE: grid.count - planned},
        failed=outcome.failed,
        voxels=voxels,
        seconds=time.perf_counter() - started,
        read_amplification=round(read_amplification(grid, tilings, prepared.volume.chunk), 2),
        workers=dict(workers),
        busy={name: round(share, 3) for name, share in outcome.busy.shares().items()},
        peak_in_flight=outcome.peak_in_flight,
    )
