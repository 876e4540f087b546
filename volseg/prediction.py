"""A prediction run, from what the user asked for to a finished target.

options -> source, model card -> plan (refusals) -> cluster -> worker's facts -> run record -> target
-> blocks that are neither done nor outside the mask -> marks -> summary
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.blocks import Box, Tiling, parse_roi, read_amplification
from volseg.cluster import Cluster, Outcome, Progress, connect, run_blocks, visible_gpus
from volseg.errors import ConfigError, ResumeError, TargetError
from volseg.foresight import done_blocks
from volseg.freezing import Prepared, freeze
from volseg.halos import halo_lines
from volseg.journey import RunTicket, compute_block
from volseg.models import chosen_classes, read_card, refuse_lone_estimate, resolve_model
from volseg.pipeline import EMPTY, Request, plan_run
from volseg.pipeline.plan import refuse_other_type, refuse_other_voxels, refuse_uneven
from volseg.storage import (
    OUTSIDE,
    Journal,
    Mark,
    RunRecord,
    create_target,
    is_target,
    open_mask,
    open_target,
    open_volume,
    read_record,
    refuse_other_than_zarr,
    refuse_overlap,
    refuse_unwritable,
)
from volseg.view.curves import save_halo_curve

if TYPE_CHECKING:
    from collections.abc import Iterable

    from volseg.blocks import BlockGrid, Zyx
    from volseg.pipeline import BlockReport
    from volseg.runfiles import PredictConfig
    from volseg.storage import BlockMask


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


def prepare(config: PredictConfig) -> Prepared:
    """Open what is read, plan the blocks and refuse what cannot work; loads neither torch nor Dask.

    Raises:
        VolsegError: the first thing that does not fit.
    """
    if config.workers is not None and config.cluster != "local":
        raise ConfigError(f"--workers {config.workers} is for --cluster local; leave it out with {config.cluster}")
    if config.halo_tolerance is not None and config.halo != "auto":
        raise ConfigError(f"--halo-tolerance is for --halo auto; leave it out with --halo {_shown(config.halo)}")
    target = Path(config.target).absolute()
    _refuse_target(target, config)
    volume = open_volume(config.source, level=config.scale_level)
    refuse_overlap("source", volume.location, target)
    models = tuple(read_card(resolve_model(name)) for name in config.model)
    for model in models:
        refuse_overlap("model", model.path, target)
        if not config.ignore_voxel_size:
            refuse_other_voxels(volume.voxel_nm, model.card.voxel_nm, model.card.footprint, volume.levels_nm)
        refuse_other_type(volume.dtype, model.card.normalization)
        if config.orientations == "all":
            refuse_uneven(model.card.footprint)
    classes = chosen_classes(models, config.classes)
    refuse_lone_estimate(models, config.orientations, uncertainty=config.uncertainty)
    recorded = read_record(target) if config.resume and target.exists() else None
    if recorded is not None and recorded.source.shape != volume.shape:
        raise ResumeError(
            f"{target} was begun with another source, of shape {recorded.source.shape}, not {volume.shape}"
        )
    if recorded is not None and [was.digest for was in recorded.models] != [model.digest for model in models]:
        names = ", ".join(was.name for was in recorded.models)
        raise ResumeError(f"{target} was begun with another model ({names}); give that, or --overwrite")
    footprints = tuple(model.card.footprint for model in models)
    plan = plan_run(volume.shape, volume.chunk, footprints, _request(config, volume.shape, recorded))
    mask = _mask(config, recorded, plan.grid, target)
    return Prepared(config, volume, models, classes, plan, target, recorded, mask)


def _mask(config: PredictConfig, recorded: RunRecord | None, grid: BlockGrid, target: Path) -> BlockMask | None:
    """The mask that was asked for; that of the record where a run goes on and none is."""
    was = recorded.mask.location if recorded and recorded.mask else None
    if (config.mask or was) is None:
        return None
    mask = open_mask(str(config.mask or was), grid)
    refuse_overlap("mask", mask.volume.location, target)
    return mask


def _shown(halo: Zyx | str) -> str:
    return halo if isinstance(halo, str) else ",".join(map(str, halo))


def _request(config: PredictConfig, shape: Zyx, recorded: RunRecord | None) -> Request:
    """What to plan for; a run that goes on fills what is not asked for from its record."""
    was = recorded.settings if recorded else None
    region: Box | None = was.region if was else None
    if config.roi is not None:
        region = parse_roi(config.roi, shape)
    frozen = tuple(entry.halo for entry in recorded.models) if recorded and config.halo == "auto" else None
    return Request(
        block=config.block or (was.block if was else None),
        shard=config.shard or (was.shard if was else None),
        chunk=config.chunk or (was.chunk if was else None),
        # What is to be measured is planned for at its largest.
        halo="exact" if config.halo == "auto" else config.halo,
        halos=frozen,
        region=region,
        tile=config.tile,
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
    refuse_unwritable(target)


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
            create_target(path, record, prepared.volume.voxel_nm or prepared.models[0].card.voxel_nm)
            _draw_halos(record, progress, path)
        files = tuple(model.path for model in prepared.models)
        ticket = RunTicket(str(path), record.digest, prepared.volume.location, files)
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
    prepared: Prepared,
    record: RunRecord,
    ticket: RunTicket,
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
