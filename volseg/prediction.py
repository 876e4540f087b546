"""A prediction run, from what the user asked for to a finished target.

options -> source, model card -> plan (refusals) -> cluster -> worker's facts -> run record -> target
-> blocks not yet done -> marks -> summary
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.blocks import BlockSet, Box, parse_roi
from volseg.cluster import Cluster, Outcome, Progress, connect, run_blocks, visible_gpus
from volseg.errors import ConfigError, ResumeError, TargetError
from volseg.freezing import Prepared, freeze
from volseg.journey import RunTicket, compute_block
from volseg.models import read_card, resolve_model
from volseg.pipeline import Request, plan_run
from volseg.pipeline.plan import refuse_other_type, refuse_other_voxels
from volseg.storage import (
    Journal,
    Mark,
    RunRecord,
    create_target,
    is_target,
    open_target,
    open_volume,
    read_marks,
    read_record,
    refuse_other_than_zarr,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    from volseg.blocks import Zyx
    from volseg.pipeline import BlockReport
    from volseg.runfiles import PredictConfig


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        target: where the probabilities are.
        blocks: of the run in all.
        already_done: of these, done before this start.
        done: done now.
        failed: block numbers with the reason each failed for.
        voxels: written now.
        seconds: from the first block sent to the last that came back.
        workers: blocks done by each worker.
        peak_in_flight: the most blocks that were sent and not yet back.
    """

    target: str
    blocks: int
    already_done: int
    done: int
    failed: dict[int, str]
    voxels: int
    seconds: float
    workers: dict[str, int]
    peak_in_flight: int


def prepare(config: PredictConfig) -> Prepared:
    """Open what is read, plan the blocks and refuse what cannot work; loads neither torch nor Dask.

    Raises:
        VolsegError: the first thing that does not fit.
    """
    if config.workers is not None and config.cluster != "local":
        raise ConfigError(f"--workers {config.workers} is for --cluster local; leave it out with {config.cluster}")
    target = Path(config.target).absolute()
    _refuse_target(target, config)
    volume = open_volume(config.source)
    _refuse_overlap("source", volume.location, target)
    model = read_card(resolve_model(config.model))
    _refuse_overlap("model", model.path, target)
    card = model.card
    if not config.ignore_voxel_size:
        refuse_other_voxels(volume.voxel_nm, card.voxel_nm, card.footprint)
    refuse_other_type(volume.dtype, card.normalization)
    recorded = read_record(target) if config.resume and target.exists() else None
    if recorded is not None and recorded.source.shape != volume.shape:
        raise ResumeError(
            f"{target} was begun with another source, of shape {recorded.source.shape}, not {volume.shape}"
        )
    if recorded is not None and recorded.model.digest != model.digest:
        raise ResumeError(f"{target} was begun with another model ({recorded.model.name}); give that, or --overwrite")
    plan = plan_run(volume.shape, volume.chunk, card.footprint, _request(config, volume.shape, recorded))
    return Prepared(config, volume, model, plan, target, recorded)


def _request(config: PredictConfig, shape: Zyx, recorded: RunRecord | None) -> Request:
    """What to plan for; a run that goes on fills what is not asked for from its record."""
    was = recorded.settings if recorded else None
    region: Box | None = was.region if was else None
    if config.roi is not None:
        region = parse_roi(config.roi, shape)
    # The smallest halo that is enough is measured by no version yet; exact always is.
    automatic: Zyx | Literal["exact"] = was.halo if was else "exact"
    return Request(
        block=config.block or (was.block if was else None),
        shard=config.shard or (was.shard if was else None),
        chunk=config.chunk or (was.chunk if was else None),
        halo=automatic if config.halo == "auto" else config.halo,
        region=region,
    )


def _refuse_target(target: Path, config: PredictConfig) -> None:
    if "://" in config.target:
        raise TargetError(f"target {config.target} is a URL; write to a local or mounted path and copy it from there")
    if config.resume and config.overwrite:
        raise TargetError("--resume and --overwrite contradict each other; give one of them")
    if target.exists() and not (config.resume or config.overwrite):
        raise TargetError(
            f"target {target} exists already; give --resume to finish it, --overwrite to replace it, or another path"
        )
    if config.overwrite:
        refuse_other_than_zarr(target)
    if target.exists() and config.resume and not is_target(target):
        raise TargetError(f"target {target} holds no run of volseg to resume; choose another path")
    standing = next(folder for folder in target.parents if folder.exists())
    if not standing.is_dir():
        raise TargetError(f"target {target} cannot be written: {standing} is a file; choose another folder")
    if not os.access(standing, os.W_OK) or _read_only(standing):
        raise TargetError(f"target {target} cannot be written: {standing} is read-only for you; choose another folder")


def _refuse_overlap(what: str, location: str, target: Path) -> None:
    """Refuse to write into what is read, or over it.

    Raises:
        TargetError: one lies in the other.
    """
    read, real = Path(location).resolve(), target.resolve()
    if "://" not in location and (read.is_relative_to(real) or real.is_relative_to(read)):
        raise TargetError(f"target {target} and {what} {location} lie in one another; choose a path outside the {what}")


def _read_only(folder: Path) -> bool:
    """Whether a folder is on a read-only mount, which file modes do not show (and root ignores modes)."""
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def execute(prepared: Prepared, progress: Progress, numbers: Iterable[int] | None = None) -> Summary:
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
        record = freeze(prepared, cluster, progress)
        path = prepared.target
        if prepared.recorded is None:
            create_target(path, record, prepared.volume.voxel_nm or prepared.model.card.voxel_nm)
        ticket = RunTicket(str(path), record.digest, prepared.volume.location, prepared.model.path)
        return _run(cluster, record, ticket, progress, record.grid.numbers() if numbers is None else numbers)


def _run(cluster: Cluster, record: RunRecord, ticket: RunTicket, progress: Progress, numbers: Iterable[int]) -> Summary:
    folder = open_target(Path(ticket.target)).journal
    with Journal(folder) as journal:
        done = BlockSet(mark.block for mark in read_marks(folder))
        voxels, workers = 0, Counter[str]()

        def on_done(report: BlockReport, attempt: int, worker: str) -> None:
            nonlocal voxels
            journal.mark(Mark(report.number, report.digest, attempt, worker, round(report.seconds, 3)))
            voxels += report.voxels
            workers[worker] += 1

        progress.begin(record.grid.count - len(done))
        started = time.perf_counter()
        todo = (number for number in numbers if number not in done)
        outcome: Outcome = run_blocks(cluster, todo, partial(compute_block, ticket=ticket), on_done, progress)
    return Summary(
        target=ticket.target,
        blocks=record.grid.count,
        already_done=len(done),
        done=outcome.done,
        failed=outcome.failed,
        voxels=voxels,
        seconds=time.perf_counter() - started,
        workers=dict(workers),
        peak_in_flight=outcome.peak_in_flight,
    )
