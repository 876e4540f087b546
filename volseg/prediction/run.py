"""A prediction run, from a checked specification to a finished target.

specification -> cluster -> run record (every `auto` resolved on the workers) -> target
-> blocks that are neither done nor outside the mask -> marks -> summary
"""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from functools import partial
from io import BytesIO
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from volseg.blocks import Tiling, read_amplification
from volseg.cluster import (
    MIN_FAILED,
    BlockOrder,
    Deadline,
    Executor,
    FailurePolicy,
    Progress,
    connect,
    refuse_other_versions,
    run_blocks,
    visible_gpus,
)
from volseg.errors import TargetError
from volseg.pipeline import EMPTY
from volseg.plots.curves import plot_halo_curve
from volseg.prediction.absence import chunk_rule
from volseg.prediction.autotune.halo import halo_lines
from volseg.prediction.failed import FailureWatch
from volseg.prediction.marking import MarkWriter
from volseg.prediction.prepare import planned_blocks
from volseg.prediction.resolve import resolve_run
from volseg.prediction.resume import done_blocks, refuse_edited_metadata
from volseg.prediction.summary import Summary
from volseg.prediction.worker import RunRef, compute_block, restored_heap
from volseg.storage import (
    OUTSIDE,
    FailureLog,
    Journal,
    ObjectPath,
    RunRecord,
    ShardCheck,
    journal_folder,
    lock_journal,
    new_target,
    open_pyramid,
    open_target,
    read_record,
    write_table,
)
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from volseg.blocks import BlockSet, PyramidGrid
    from volseg.prediction.absence import ChunkRule
    from volseg.prediction.constants import RunConstants
    from volseg.prediction.prepare import RunSpec
    from volseg.prediction.resume import DoneBlocks
    from volseg.storage import Pyramid, TargetPath


class _Order(NamedTuple):
    """Blocks to compute in their order, and those of them that count as not done; None for those without a mark."""

    numbers: Iterable[int]
    again: BlockSet | None


def execute(
    spec: RunSpec,
    recorded: RunRecord | None,
    progress: Progress,
    numbers: Iterable[int] | None = None,
    again: BlockSet | None = None,
) -> Summary:
    """Run to the end.

    Args:
        spec: the run.
        recorded: the record of the run to resume; None for a new one.
        progress: receives the progress.
        numbers: order of the blocks; ascending by default.
        again: blocks to compute whether they are done or not, and no others; None for all that are not done.

    Raises:
        VolsegError: the cluster, the memory or the target refused, or the recorded run was another.
    """
    if spec.cluster != "serial":
        progress.stage("waiting for workers")
    with (
        ExitStack() as owned,  # closed when the workers have stopped
        connect(spec.cluster, spec.workers, visible_gpus(spec.device), spec.tls) as executor,
        restored_heap(executor),
    ):
        refuse_other_versions(executor, progress)
        rule = chunk_rule(spec, recorded, progress)
        record, constants = resolve_run(spec, recorded, executor, progress, rule=rule)
        order = record.grid.numbers() if numbers is None else numbers
        if isinstance(spec.target, ObjectPath):
            progress.stage("taking the lease of the target; that of a run that died ends within a minute")
        if recorded is None:
            owned.enter_context(new_target(spec.target, record, spec.map_place, overwrite=spec.overwrite))
            _save_halo_curves(spec, record, progress)
        else:
            owned.enter_context(lock_journal(journal_folder(spec.target)))
        owned.callback(_remove_partials, _take_over(spec, record), spec, record)
        return _run(spec, record, constants, rule, executor, progress, _Order(order if again is None else again, again))


def _save_halo_curves(spec: RunSpec, record: RunRecord, progress: Progress) -> None:
    """Show the measurements of each measured halo, as a table and as a picture in the target."""
    for number, entry in enumerate(record.models):
        if not entry.halo_curve:
            continue
        progress.note("\n".join(halo_lines(entry)))
        picture = open_target(spec.target).journal / f"halo-{number}.png"
        picture.parent.mkdir(exist_ok=True)
        drawn = BytesIO()
        costs = [Tiling(entry.footprint, entry.tile, point.halo).overhead for point in entry.halo_curve]
        rows = [(p.halo, p.max_error, p.fraction, cost) for p, cost in zip(entry.halo_curve, costs, strict=True)]
        plot_halo_curve(drawn, rows, entry.halo, title=f"halo of {entry.name}")
        picture.write_bytes(drawn.getvalue())
        progress.note(f"the curve is drawn in {picture}")


def _take_over(spec: RunSpec, record: RunRecord) -> Pyramid:
    """The volumes of a run, to write into, with the journal's lock held.

    Raises:
        TargetError: the target is another run's.
    """
    path = spec.target
    if read_record(path).digest != record.digest:
        raise TargetError(f"{path} was replaced by another run before this one began; rerun it elsewhere")
    pyramid = open_pyramid(path, record)
    for target in pyramid.targets:
        refuse_edited_metadata(target, record)
        target.remove_partials()
    return pyramid


def _remove_partials(pyramid: Pyramid, spec: RunSpec, record: RunRecord) -> None:
    """Delete half-written shards at the end, unless the target is another run's by then."""
    with suppress(TargetError):
        if read_record(spec.target).digest == record.digest:
            for target in pyramid.targets:
                target.remove_partials()


def _done_before(
    folder: TargetPath, grid: PyramidGrid, rule: ChunkRule, again: BlockSet | None, progress: Progress
) -> DoneBlocks:
    """Blocks that the journal in a folder marks, without those to compute again."""
    done = done_blocks(folder, grid, accepts_missing=rule.explains)
    if done.damaged:
        damaged = counted(done.damaged, "mark")
        progress.note(f"{damaged} of the journal cannot be read; computing their blocks again")
    if again is not None:
        done.forget(again)
    return done


def _lost_blocks(
    check: ShardCheck, done: DoneBlocks, pyramid: PyramidGrid, lost: list[int], progress: Progress, planned: int
) -> Iterator[int]:
    """Blocks that were done and whose shards are gone: the end of the plan, which waits for their check.

    Args:
        check: finds them.
        done: what was done; loses those of coarser levels.
        pyramid: the blocks of all levels.
        lost: receives those of level 0.
        progress: receives a note of them.
        planned: blocks that the plan holds without them.
    """
    found = check.lost()
    if found:
        blocks = "1 block that was" if len(found) == 1 else f"{len(found)} blocks that were"
        progress.note(f"{blocks} done lost shards, or they changed in size; computing them again")
        again = {*found, *(above for above in pyramid.above(found) if above in done.coarser)}
        progress.begin(planned + len(again))
    lost.extend(number for number in found if number in done.blocks)
    for number in found:
        done.coarser.discard(number)
    yield from lost


def _max_failed(spec: RunSpec, blocks: int) -> int:
    """Blocks that the run may give up: one in a hundred by default."""
    return max(MIN_FAILED, blocks // 100) if spec.max_failed is None else spec.max_failed


def _run(
    spec: RunSpec,
    record: RunRecord,
    constants: RunConstants,
    rule: ChunkRule,
    executor: Executor,
    progress: Progress,
    order: _Order,
) -> Summary:
    pyramid, grid, mask = open_pyramid(spec.target, record), record.grid, spec.mask
    folder = pyramid.finest[0].journal
    planned = record.planned
    reference = RunRef(str(spec.target), record.digest, spec.source, spec.model_files, spec.missing_chunks)
    with Journal(folder, run=record.digest, is_locked=True) as journal:
        for table in constants.tables:
            write_table(folder, table)
        if rule.census is not None:
            rule.census.write(folder)
        done = _done_before(folder, pyramid.grid, rule, order.again, progress)
        coarser = record.planned_coarser - len(done.coarser)
        left = planned - len(done.blocks) + coarser if order.again is None else len(order.again)
        marking, lost = MarkWriter(journal, pyramid, done.empty, done.lacking, progress), list[int]()
        watch = FailureWatch(spec.target, record.digest, spec.volume, FailureLog(folder))
        policy = FailurePolicy(max_failed=_max_failed(spec, planned))
        progress.begin(left)
        started = time.perf_counter()
        todo = (
            number
            for number in order.numbers
            if number < grid.count and number not in done.blocks and (mask is None or number in mask)
        )
        with ShardCheck(pyramid, done.sizes) as check:
            finest = chain(todo, _lost_blocks(check, done, pyramid.grid, lost, progress, left))
            plan = BlockOrder(finest, pyramid.grid, done.blocks, done.coarser, planned_blocks(spec))
            outcome = run_blocks(
                executor, plan, partial(compute_block, reference=reference), plan.tracking(marking), progress,
                on_failed=plan.tracking_failures(watch), policy=policy, deadline=Deadline(spec.block_timeout),
            )  # fmt: skip
        watch.confirm_target()
    tilings = [entry.tiling for entry in record.models]
    return Summary(
        target=str(spec.target),
        blocks=grid.count,
        already_done=len(done.blocks) - len(lost),
        done=outcome.done - marking.coarser,
        skipped={EMPTY: marking.empty, OUTSIDE: grid.count - planned},
        failed=outcome.failed,
        chunks=record.source.chunks,
        chunks_checked=record.source.chunks_checked,
        chunks_absent=record.source.chunks_absent,
        lacking=len(marking.lacking),
        unexplained=0 if rule.explains else len(marking.lacking),
        all_empty=0 < marking.empty == len(done.blocks) + outcome.done - marking.coarser and not outcome.failed,
        levels=len(record.levels),
        coarser_left=plan.left,
        voxels=marking.voxels,
        seconds=time.perf_counter() - started,
        read_amplification=round(read_amplification(record.network_grid, tilings, spec.volume.chunk), 2),
        workers=dict(marking.workers),
        busy={name: round(fraction, 3) for name, fraction in outcome.utilization.fractions().items()},
        peak_in_flight=outcome.peak_in_flight,
    )
