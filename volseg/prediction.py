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

from volseg.blocks import BlockSet, Box, Tiling, parse_roi
from volseg.cluster import Cluster, Outcome, Progress, connect, run_blocks, visible_gpus
from volseg.errors import ConfigError, ResumeError, TargetError
from volseg.freezing import Prepared, freeze
from volseg.halos import halo_lines
from volseg.journey import RunTicket, compute_block
from volseg.models import ModelHeader, read_card, resolve_model
from volseg.pipeline import Request, plan_run
from volseg.pipeline.plan import refuse_other_type, refuse_other_voxels, refuse_uneven
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
from volseg.view.curves import save_halo_curve

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
    if config.halo_tolerance is not None and config.halo != "auto":
        raise ConfigError(f"--halo-tolerance is for --halo auto; leave it out with --halo {_shown(config.halo)}")
    target = Path(config.target).absolute()
    _refuse_target(target, config)
    volume = open_volume(config.source, level=config.scale_level)
    _refuse_overlap("source", volume.location, target)
    models = tuple(read_card(resolve_model(name)) for name in config.model)
    for model in models:
        _refuse_overlap("model", model.path, target)
        if not config.ignore_voxel_size:
            refuse_other_voxels(volume.voxel_nm, model.card.voxel_nm, model.card.footprint, volume.levels_nm)
        refuse_other_type(volume.dtype, model.card.normalization)
        if config.orientations == "all":
            refuse_uneven(model.card.footprint)
    classes = _classes(models, config.classes)
    _refuse_lone_estimate(models, config)
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
    return Prepared(config, volume, models, classes, plan, target, recorded)


def _classes(models: Sequence[ModelHeader], asked: str) -> tuple[str, ...]:
    """What is written: `auto` is membrane where all models know it, else all classes.

    Raises:
        ModelError: a model does not know a class that was asked for.
        ConfigError: a class is named twice, or all are asked for of models that have different ones.
    """
    known = [model.card.classes for model in models]
    if asked == "auto":
        asked = "membrane" if all("membrane" in each for each in known) else "all"
    if asked == "all" and len(set(known)) > 1:
        each = "; ".join(f"{model.card.name}: {', '.join(model.card.classes)}" for model in models)
        raise ConfigError(f"the models have different classes ({each}); name those to average with --classes")
    classes = known[0] if asked == "all" else tuple(part.strip() for part in asked.split(","))
    if len(set(classes)) < len(classes):
        raise ConfigError(f"--classes {asked} names a class twice; name each once")
    for model in models:
        model.card.channels_of(classes)
    return classes


def _refuse_lone_estimate(models: Sequence[ModelHeader], config: PredictConfig) -> None:
    """Refuse the spread of a single estimate, and one network given twice.

    Raises:
        ConfigError: there is one estimate only, or a model is given more than once.
    """
    if config.uncertainty and len(models) == 1 and config.orientations == "one":
        raise ConfigError(
            "--uncertainty is the spread of several estimates, and there is one; give --orientations flips or all, "
            "or several --model"
        )
    twice = [name for name, times in Counter(model.digest for model in models).items() if times > 1]
    if twice:
        name = next(model.path for model in models if model.digest == twice[0])
        raise ConfigError(f"--model {name} is given more than once; an ensemble averages different models")


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
            create_target(path, record, prepared.volume.voxel_nm or prepared.models[0].card.voxel_nm)
            _draw_halos(record, progress, path)
        files = tuple(model.path for model in prepared.models)
        ticket = RunTicket(str(path), record.digest, prepared.volume.location, files)
        return _run(cluster, record, ticket, progress, record.grid.numbers() if numbers is None else numbers)


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
