"""A prediction run, from a checked specification to a finished target.

specification -> cluster -> run record (every `auto` resolved on the workers) -> target
-> blocks that are neither done nor outside the mask -> marks -> summary
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from volseg.blocks import Tiling, read_amplification
from volseg.cluster import Executor, Progress, connect, run_blocks, visible_gpus
from volseg.pipeline import EMPTY
from volseg.plots.curves import save_halo_curve
from volseg.prediction.autotune.halo import halo_lines
from volseg.prediction.resolve import resolve_run
from volseg.prediction.resume import done_blocks
from volseg.prediction.worker import RunRef, compute_block, restored_heap
from volseg.storage import OUTSIDE, Journal, Mark, RunRecord, create_target, open_target

if TYPE_CHECKING:
    from collections.abc import Iterable

    from volseg.pipeline import BlockReport
    from volseg.prediction.prepare import RunSpec


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
        voxels: written in this start.
        seconds: from the first block sent to the last completed.
        read_amplification: how often a chunk of the source is decoded, if no block is skipped.
        workers: number of blocks that each worker did.
        busy: fraction of its time that each worker spent in forward passes, from its first finished block on.
        peak_in_flight: maximum number of blocks sent and not completed.
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


def execute(
    spec: RunSpec, recorded: RunRecord | None, progress: Progress, numbers: Iterable[int] | None = None
) -> Summary:
    """Run to the end.

    Args:
        spec: the run.
        recorded: the record of the run to resume; None for a new one.
        progress: receives the progress.
        numbers: order of the blocks; ascending by default.

    Raises:
        VolsegError: the cluster, the memory or the target refused, or the recorded run was another.
    """
    with connect(spec.cluster, spec.workers, visible_gpus(spec.device)) as executor, restored_heap(executor):
        record = resolve_run(spec, recorded, executor, progress)
        if recorded is None:
            create_target(spec.target, record, spec.place)
            _save_halo_curves(spec, record, progress)
        return _run(spec, record, executor, progress, record.grid.numbers() if numbers is None else numbers)


def _save_halo_curves(spec: RunSpec, record: RunRecord, progress: Progress) -> None:
    """Show the measurements of each measured halo, as a table and as a picture in the target."""
    for number, entry in enumerate(record.models):
        if not entry.halo_curve:
            continue
        progress.note("\n".join(halo_lines(entry)))
        picture = open_target(spec.target).journal / f"halo-{number}.png"
        picture.parent.mkdir(exist_ok=True)
        costs = [Tiling(entry.footprint, entry.tile, point.halo).overhead for point in entry.halo_curve]
        rows = [(p.halo, p.max_error, p.fraction, cost) for p, cost in zip(entry.halo_curve, costs, strict=True)]
        save_halo_curve(picture, rows, entry.halo, title=f"halo of {entry.name}")
        progress.note(f"the curve is drawn in {picture}")


def _run(spec: RunSpec, record: RunRecord, executor: Executor, progress: Progress, numbers: Iterable[int]) -> Summary:
    folder, grid, mask = open_target(spec.target).journal, record.grid, spec.mask
    planned = mask.count if mask else grid.count
    reference = RunRef(str(spec.target), record.digest, spec.volume.location, spec.model_files)
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
        outcome = run_blocks(executor, todo, partial(compute_block, reference=reference), on_done, progress)
    tilings = [entry.tiling for entry in record.models]
    return Summary(
        target=str(spec.target),
        blocks=grid.count,
        already_done=len(done),
        done=outcome.done,
        skipped={EMPTY: empty, OUTSIDE: grid.count - planned},
        failed=outcome.failed,
        voxels=voxels,
        seconds=time.perf_counter() - started,
        read_amplification=round(read_amplification(grid, tilings, spec.volume.chunk), 2),
        workers=dict(workers),
        busy={name: round(fraction, 3) for name, fraction in outcome.utilization.fractions().items()},
        peak_in_flight=outcome.peak_in_flight,
    )
