"""A prediction run, from a checked specification to a finished target.

specification -> cluster -> run record (every `auto` resolved on the workers) -> target
-> blocks that are neither done nor outside the mask -> marks -> summary
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from volseg.blocks import read_amplification
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
from volseg.prediction.absence import chunk_rule
from volseg.prediction.failed import FailureWatch
from volseg.prediction.marking import MarkWriter
from volseg.prediction.parts import share_of
from volseg.prediction.resolve import resolve_run
from volseg.prediction.resume import done_blocks
from volseg.prediction.summary import Summary
from volseg.prediction.targets import create_own, remove_partials, take_over
from volseg.prediction.usage import UsageMeter
from volseg.prediction.worker import RunRef, compute_block, restored_heap
from volseg.storage import (
    OUTSIDE,
    REPEATS,
    FailureLog,
    Journal,
    ObjectPath,
    RunRecord,
    ShardCheck,
    SummaryWriter,
    journal_folder,
    lock_journal,
    lock_part,
    open_pyramid,
    write_table,
)
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from volseg.blocks import BlockSet, Part, PyramidGrid
    from volseg.prediction.absence import ChunkRule
    from volseg.prediction.constants import RunConstants
    from volseg.prediction.parts import Share
    from volseg.prediction.prepare import RunSpec
    from volseg.prediction.resume import DoneBlocks
    from volseg.storage import TargetPath


class Begun(NamedTuple):
    """A run whose record is made, and its target.

    Attributes:
        spec: the run.
        record: its record.
        constants: of each network's input.
        rule: which chunks the source may lack.
        executor: computes the blocks.
        progress: receives the progress.
        usage: counts what the workers do.
        on_ready: called when all that the record names is there.
    """

    spec: RunSpec
    record: RunRecord
    constants: RunConstants
    rule: ChunkRule
    executor: Executor
    progress: Progress
    usage: UsageMeter
    on_ready: Callable[[], None] = lambda: None


class BlockChoice(NamedTuple):
    """Blocks to compute in their order, and those of them that count as not done; None for those without a mark."""

    numbers: Iterable[int] | None
    again: BlockSet | None


def execute(
    spec: RunSpec,
    recorded: RunRecord | None,
    progress: Progress,
    numbers: Iterable[int] | None = None,
    again: BlockSet | None = None,
    *,
    part: Part | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> Summary:
    """Run to the end.

    Args:
        spec: the run.
        recorded: the record of the run to resume; None for a new one.
        progress: receives the progress.
        numbers: order of the blocks; ascending by default.
        again: blocks to compute whether they are done or not, and no others; None for all that are not done.
        part: of the blocks to compute; None for all.
        on_ready: called when the target and all that its record names are there.

    Raises:
        VolsegError: the cluster, the memory or the target refused, or the recorded run was another.
    """
    REPEATS.take()  # of an earlier run of this process
    if spec.cluster != "serial":
        progress.stage("waiting for workers")
    with (
        ExitStack() as owned,  # closed when the workers have stopped
        connect(spec.cluster, spec.workers, visible_gpus(spec.device), spec.tls, progress.note) as executor,
        restored_heap(executor),
        UsageMeter(executor) as usage,
    ):
        refuse_other_versions(executor, progress)
        rule = chunk_rule(spec, recorded, progress)
        record, constants = resolve_run(spec, recorded, executor, progress, rule=rule)
        share = share_of(spec, record, part)
        if isinstance(spec.target, ObjectPath):
            progress.stage("taking the lease of the target; that of a run that died ends within a minute")
        if recorded is None:
            create_own(spec, record, owned, progress, part)
        else:
            folder = journal_folder(spec.target)
            owned.enter_context(lock_journal(folder) if part is None else lock_part(folder, part))
        owned.callback(remove_partials, take_over(spec, record), spec, record)
        begun = Begun(spec, record, constants, rule, executor, progress, usage, on_ready)
        owned.enter_context(usage.logged(journal_folder(spec.target), record.digest))
        summary = run_recorded(begun, share, BlockChoice(numbers if again is None else again, again))
        if part is None or summary.failed:
            return summary
        owned.close()  # of two drivers that end at once at least one is alone afterwards
        return _finish(begun, summary)


def _finish(begun: Begun, summary: Summary) -> Summary:
    """Make the coarser blocks that are made of several parts' blocks, if all parts are done and nobody else does.

    Args:
        begun: the run.
        summary: of a part.
    """
    record, folder = begun.record, journal_folder(begun.spec.target)
    done = done_blocks(folder, record.pyramid, accepts_missing=begun.rule.explains)
    left = record.planned - len(done.blocks)
    summary = replace(summary, left=left, coarser_left=record.planned_coarser - len(done.coarser))
    if left or not summary.coarser_left:
        return summary
    with ExitStack() as held:
        try:
            held.enter_context(lock_journal(folder))
        except TargetError:  # another part has ended at the same time
            return summary
        whole = run_recorded(begun, share_of(begun.spec, record, None), BlockChoice(None, None))
    return replace(summary, coarser_left=whole.coarser_left, failed=whole.failed)


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


def run_recorded(begun: Begun, share: Share, order: BlockChoice) -> Summary:
    """Compute blocks into the target that was created, and mark them.

    Args:
        begun: the run; its journal's lock is held.
        share: blocks of this driver.
        order: which of them to compute.

    Raises:
        VolsegError: the cluster or the target refused, or too many blocks failed.
    """
    spec, record, constants, rule, executor, progress, usage, on_ready = begun
    pyramid, grid = open_pyramid(spec.target, record), record.grid
    folder = pyramid.finest[0].journal
    reference = RunRef(str(spec.target), record.digest, spec.source, spec.model_files, spec.missing_chunks)
    with (
        SummaryWriter(folder, pyramid.grid, EMPTY),
        Journal(folder, run=record.digest, is_locked=True) as journal,
    ):
        for table in constants.tables:
            write_table(folder, table)
        if rule.census is not None:
            rule.census.write(folder)
        on_ready()
        done = _done_before(folder, pyramid.grid, rule, order.again, progress)
        share.restrict(done)
        done_of_level_0 = share.count_done(done.blocks)
        left = share.blocks - done_of_level_0 + share.coarser - share.count_done(done.coarser)
        left = left if order.again is None else len(order.again)
        marking, lost = MarkWriter(journal, pyramid, done.empty, done.lacking, progress), list[int]()
        watch = FailureWatch(spec.target, record.digest, spec.volume, FailureLog(folder))
        policy = FailurePolicy(max_failed=_max_failed(spec, share.blocks))
        progress.begin(left)
        started = time.perf_counter()
        undone = share.undone(done.blocks, grid.count)
        if order.numbers is not None:
            undone = (n for n in order.numbers if n < grid.count and n not in done.blocks and n in share)
        with ShardCheck(pyramid, done.sizes) as check:
            finest = chain(undone, _lost_blocks(check, done, pyramid.grid, lost, progress, left))
            plan = BlockOrder(finest, pyramid.grid, done.blocks, done.coarser, share.planned, count=left)
            outcome = run_blocks(
                executor, plan, partial(compute_block, reference=reference), plan.tracking(usage.counting(marking)),
                progress, on_failed=plan.tracking_failures(usage.counting_failures(watch)), policy=policy,
                deadline=Deadline(spec.block_timeout),
            )  # fmt: skip
        watch.confirm_target()
    tilings = [entry.tiling for entry in record.models]
    return Summary(
        target=str(spec.target),
        blocks=share.blocks + share.outside,
        already_done=done_of_level_0 - len(lost),
        done=outcome.done - marking.coarser,
        skipped={EMPTY: marking.empty, OUTSIDE: share.outside},
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
        part=None if share.part is None else str(share.part),
        repeats=marking.repeats + REPEATS.take(),
    )
