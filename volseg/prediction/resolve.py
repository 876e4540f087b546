"""What a run freezes before its first block: all that its bytes depend on, as the workers say of themselves."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import astuple
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from volseg.cluster.progress import Progress
from volseg.errors import ClusterError
from volseg.inference import Engine, WorkerInfo, choose_precision, threads_each, worker_info
from volseg.prediction.autotune.probe import ProbeSpec
from volseg.prediction.autotune.tuner import Tuner
from volseg.prediction.prepare import RunSpec, load_of
from volseg.prediction.resume import refuse_if_different
from volseg.storage import RunRecord, Settings, SourceEntry, source_identity, volume_statistics
from volseg.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

if TYPE_CHECKING:
    from volseg.cluster import Cluster, Progress
    from volseg.ops import Statistics


def resolve_run(prepared: RunSpec, cluster: Cluster, progress: Progress) -> RunRecord:
    """Decide all that the bytes depend on, with what the workers say of themselves.

    What was left to volseg is taken from the record of a run that goes on.

    Raises:
        ResumeError: the recorded run had other weights, settings or source.
    """
    volume, recorded = prepared.volume, prepared.recorded
    facts: list[WorkerInfo] = cluster.on_each(worker_info, prepared.config.device)
    source = SourceEntry(
        location=volume.location,
        shape=volume.shape,
        dtype=volume.dtype,
        voxel_nm=volume.voxel_nm,
        identity=source_identity(volume),
    )
    settings = _settings(prepared, cluster, facts)
    statistics = [entry.statistics for entry in recorded.models] if recorded else _statistics(prepared, progress)
    readying = Tuner(
        plan=prepared.plan,
        recorded=recorded.models if recorded else None,
        tolerance=prepared.tolerance if prepared.measures else None,
        identity=source.identity,
        cluster=cluster,
        progress=progress,
    )
    may_lower = prepared.config.precision == "auto"
    networks = readying.rounded(_sampled(prepared, settings, facts, cluster, statistics), may_lower=may_lower)
    asked = RunRecord(
        source=source,
        models=readying.entries(networks, [model.card for model in prepared.models]),
        settings=settings.model_copy(update={"precision": networks[0].sampled.engine.precision}),
        version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        mask=prepared.mask.entry if prepared.mask else None,
    )
    if recorded is None:
        return asked
    refuse_if_different(recorded, asked, str(prepared.target))
    return recorded


def _settings(prepared: RunSpec, cluster: Cluster, facts: list[WorkerInfo]) -> Settings:
    """How the run computes, apart from what each network needs for itself."""
    config, plan = prepared.config, prepared.plan
    was = prepared.recorded.settings if prepared.recorded else None
    devices = {fact.device for fact in facts}
    if len(devices) > 1:
        raise ClusterError(f"{cluster.where} mixes workers with and without GPUs; choose --device cpu or cuda")
    device = devices.pop()
    return Settings(
        block=plan.grid.block,
        shard=plan.shard,
        chunk=plan.chunk,
        region=plan.grid.region,
        device=device,
        precision=was.precision
        if was and config.precision == "auto"
        else choose_precision(config.precision, facts, on_gpus="float16"),
        threads=was.threads if was else threads_each(facts),
        orientations=config.orientations,
        classes=prepared.classes,
        uncertainty=config.uncertainty,
        halo_tolerance=_tolerance(prepared, was),
    )


def _tolerance(prepared: RunSpec, was: Settings | None) -> tuple[float, float] | None:
    """What a halo was, or is to be, chosen by; None where it is not measured."""
    asked = prepared.config.halo_tolerance
    if was is not None and asked is None:
        return was.halo_tolerance
    return astuple(prepared.tolerance) if prepared.measures or asked else None


def _statistics(prepared: RunSpec, progress: Progress) -> list[Statistics]:
    """The constants of each network's input; networks that normalise alike share one pass over the volume."""
    volume, known = prepared.volume, {}
    result: list[Statistics] = []
    for model in prepared.models:
        how = model.card.normalization
        key = (how.mode, how.training if how.mode == "fixed" else ())
        if key not in known:
            known[key] = volume_statistics(volume, how, log_section_progress(progress, volume.shape[0]))
        result.append(known[key])
    return result


def _sampled(
    prepared: RunSpec,
    settings: Settings,
    facts: list[WorkerInfo],
    cluster: Cluster,
    statistics: list[Statistics],
) -> list[ProbeSpec]:
    """What a worker needs to know of each network to measure it."""
    load = load_of(prepared, settings.precision, settings.device, cluster.slots_each)
    return [
        ProbeSpec(
            source=prepared.volume.location,
            model_file=model.path,
            digest=model.digest,
            footprint=model.card.footprint,
            statistics=constants,
            engine=Engine(settings.device, settings.precision, batch=1, threads=settings.threads),
            classes=settings.classes,
            load=load,
            free=_free(facts),
        )
        for model, constants in zip(prepared.models, statistics, strict=True)
    ]


def _free(facts: list[WorkerInfo]) -> tuple[int, int]:
    """Bytes that each worker may take of its host's memory and of its GPU's, shared among those that use it."""
    per_host = max(Counter(fact.host for fact in facts).values())
    per_gpu = max(Counter((fact.host, fact.gpu) for fact in facts).values())
    return min(fact.memory for fact in facts) // per_host, min(fact.device_memory for fact in facts) // per_gpu


def log_section_progress(progress: Progress, sections: int) -> Callable[[int], None]:
    """Tells of the one pass over the volume before the first block, where it takes long."""
    started = told = time.monotonic()

    def tell(done: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told > _TELL_SECONDS:
            told = now
            left = (now - started) / done * (sections - done)
            progress.note(f"grey values of {done} of {sections} sections measured, {left:.0f} s left")

    return tell


_TELL_SECONDS = 5.0
