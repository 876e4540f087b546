"""A prediction run, from what the user asked for to a finished target.

options -> source, model card -> plan (refusals) -> cluster -> worker's facts -> run record -> target
-> blocks not yet done -> marks -> summary
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import BlockSet, Box, parse_roi
from volseg.cluster import Cluster, Outcome, Progress, connect, run_blocks, visible_gpus
from volseg.errors import ClusterError, TargetError
from volseg.inference import Load, TileChoice, WorkerFacts, choose_precision, choose_tile, threads_each, worker_facts
from volseg.journey import RunTicket, compute_block
from volseg.models import read_card, resolve_model
from volseg.pipeline import Plan, Request, plan_run
from volseg.pipeline.plan import refuse_other_type, refuse_other_voxels
from volseg.storage import (
    Journal,
    Mark,
    ModelEntry,
    RunRecord,
    Settings,
    SourceEntry,
    create_target,
    is_target,
    open_target,
    open_volume,
    read_marks,
    read_record,
    remove_target,
    source_identity,
    volume_statistics,
)
from volseg.storage.record import refuse_if_different
from volseg.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    from volseg.blocks import Zyx
    from volseg.models.card import ModelHeader
    from volseg.pipeline import BlockReport
    from volseg.runfiles import PredictConfig
    from volseg.storage import Volume

_BATCH = {"cpu": 1, "cuda": 4}


@dataclass(frozen=True)
class Prepared:
    """A run that was found sound before anything was started or written."""

    config: PredictConfig
    volume: Volume
    model: ModelHeader
    plan: Plan
    target: Path
    recorded: RunRecord | None
    """The record of the run to go on with; None for a new one."""

    def figures(self) -> dict[str, object]:
        """What the run would do, in numbers; voxels are those of the source's blocks and halos, tiles aside."""
        grid, halo = self.plan.grid, self.plan.halo
        whole = max((grid.box(number) for number in (0, grid.count - 1)), key=lambda box: box.voxels)
        return {
            "source": self.volume.location,
            "shape": list(self.volume.shape),
            "target": str(self.target),
            "model": self.model.card.name,
            "blocks": grid.count,
            "block": list(grid.block),
            "shard": list(self.plan.shard),
            "chunk": list(self.plan.chunk),
            "halo": list(halo),
            "region": str(grid.region),
            "voxels_to_write": grid.region.voxels,
            "read_for_each_written": round(whole.grown(halo).voxels / whole.voxels, 2),
        }


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
    target = Path(config.target).absolute()
    _refuse_target(target, config)
    volume = open_volume(config.source)
    _refuse_overlap(volume.location, target)
    model = read_card(resolve_model(config.model))
    card = model.card
    if not config.ignore_voxel_size:
        refuse_other_voxels(volume.voxel_nm, card.voxel_nm, card.footprint)
    refuse_other_type(volume.dtype, card.normalization)
    recorded = read_record(target) if config.resume and target.exists() else None
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
    if target.exists() and config.resume and not is_target(target):
        raise TargetError(f"target {target} holds no run of volseg to resume; choose another path")
    standing = next(folder for folder in target.parents if folder.exists())
    if not standing.is_dir():
        raise TargetError(f"target {target} cannot be written: {standing} is a file; choose another folder")
    if not os.access(standing, os.W_OK) or _read_only(standing):
        raise TargetError(f"target {target} cannot be written: {standing} is read-only for you; choose another folder")


def _refuse_overlap(location: str, target: Path) -> None:
    """Refuse to write into the source, or over it.

    Raises:
        TargetError: one lies in the other.
    """
    source = Path(location)
    real = target.resolve()
    if "://" not in location and (source.is_relative_to(real) or real.is_relative_to(source)):
        raise TargetError(f"target {target} and source {location} lie in one another; choose a path outside the source")


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
        record = freeze(prepared, cluster)
        path = prepared.target
        if prepared.recorded is None:
            if config.overwrite:
                remove_target(path)
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


def freeze(prepared: Prepared, cluster: Cluster) -> RunRecord:
    """Decide all that the bytes depend on, with what the workers say of themselves.

    What was left to volseg is taken from the record of a run that goes on.

    Raises:
        ResumeError: the recorded run had other weights, settings or source.
    """
    volume, card, recorded = prepared.volume, prepared.model.card, prepared.recorded
    facts: list[WorkerFacts] = cluster.on_each(worker_facts, prepared.config.device)
    asked = RunRecord(
        source=SourceEntry(
            location=volume.location,
            shape=volume.shape,
            dtype=volume.dtype,
            voxel_nm=volume.voxel_nm,
            identity=source_identity(volume),
        ),
        model=ModelEntry(
            location=prepared.model.path,
            name=card.name,
            digest=prepared.model.digest,
            footprint=card.footprint,
            normalization=card.normalization.mode,
        ),
        settings=_settings(prepared, cluster, facts),
        version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if recorded is None:
        return asked
    refuse_if_different(recorded, asked, str(prepared.target))
    return recorded


def _settings(prepared: Prepared, cluster: Cluster, facts: list[WorkerFacts]) -> Settings:
    recorded = prepared.recorded
    config, plan, volume = prepared.config, prepared.plan, prepared.volume
    was = recorded.settings if recorded else None
    devices = {fact.device for fact in facts}
    if len(devices) > 1:
        raise ClusterError(f"{cluster.where} mixes workers with and without GPUs; choose --device cpu or cuda")
    device = devices.pop()
    precision = was.precision if was and config.precision == "auto" else choose_precision(config.precision, facts)
    per_host = max(Counter(fact.host for fact in facts).values())
    load = Load(
        batch=was.batch if was else _BATCH[device],
        precision=precision,
        source_item=int(np.dtype(volume.dtype).itemsize),
        slots=cluster.slots_each,
        device=device,
    )
    free = (min(fact.memory for fact in facts) // per_host, min(fact.device_memory for fact in facts))
    tilings = (recorded.tiling,) if recorded else tuple(plan.tilings())
    choice: TileChoice = cluster.on_one(choose_tile, prepared.model.path, plan.grid, tilings, load, free)
    normalization = prepared.model.card.normalization
    return Settings(
        block=plan.grid.block,
        shard=plan.shard,
        chunk=plan.chunk,
        region=plan.grid.region,
        halo=plan.halo,
        tile=choice.core,
        batch=load.batch,
        device=device,
        precision=precision,
        threads=was.threads if was else threads_each(facts),
        statistics=was.statistics if was else volume_statistics(volume, normalization),
    )
