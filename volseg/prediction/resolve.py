"""Every `auto` of a run resolved on its workers: the run record."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import astuple, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from volseg.errors import ClusterError
from volseg.inference import Engine, WorkerInfo, choose_precision, threads_per_worker, worker_info
from volseg.prediction.autotune.probe import ProbeSpec
from volseg.prediction.autotune.tuner import Tuner
from volseg.prediction.resume import refuse_if_different
from volseg.storage import (
    FORMAT,
    NUMERICS,
    RunRecord,
    Settings,
    SourceEntry,
    volume_fingerprint,
    volume_statistics,
)
from volseg.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from volseg.cluster import Executor, Progress
    from volseg.ops import Statistics
    from volseg.prediction.prepare import RunSpec

_PROGRESS_SECONDS = 5.0


def resolve_run(spec: RunSpec, recorded: RunRecord | None, executor: Executor, progress: Progress) -> RunRecord:
    """Decide all that the bytes depend on, from the workers' hardware and from measurements on them.

    Args:
        spec: the run.
        recorded: the record of the run to resume, which keeps its choices; None for a new run.
        executor: whose workers are asked.
        progress: receives what is measured.

    Raises:
        ResumeError: the recorded run had other weights, settings or source.
    """
    volume = spec.volume
    workers: list[WorkerInfo] = executor.run_on_all(worker_info, spec.device)
    source = SourceEntry(
        location=volume.location,
        shape=volume.shape,
        dtype=volume.dtype,
        voxel_nm=spec.place.voxel_nm,
        identity=volume_fingerprint(volume),
        translation_nm=spec.place.translation_nm,
        voxel_size_given=spec.voxel_size_given,
    )
    settings = _settings(spec, recorded, executor, workers)
    statistics = [entry.statistics for entry in recorded.models] if recorded else _statistics(spec, progress)
    tuner = Tuner(
        plan=spec.plan,
        recorded=recorded.models if recorded else None,
        tolerance=spec.tolerance if spec.measures_halo else None,
        identity=source.identity,
        executor=executor,
        progress=progress,
    )
    probes = _probes(spec, settings, workers, executor, statistics)
    networks = tuner.tune_precision(probes, may_lower=spec.precision == "auto")
    requested = RunRecord(
        format=FORMAT,
        numerics=NUMERICS,
        source=source,
        models=tuner.model_entries(networks, [model.card for model in spec.models]),
        settings=settings.model_copy(update={"precision": networks[0].probe.engine.precision}),
        version=__version__,
        torch=", ".join(sorted({worker.torch for worker in workers})),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        mask=spec.mask.entry if spec.mask else None,
    )
    if recorded is None:
        return requested
    refuse_if_different(recorded, requested, str(spec.target))
    if recorded.torch != requested.torch:
        progress.note(
            f"the run was started with torch {recorded.torch} and is resumed with {requested.torch}: blocks of the "
            "two may differ by a grey level"
        )
    return recorded


def _settings(spec: RunSpec, recorded: RunRecord | None, executor: Executor, workers: list[WorkerInfo]) -> Settings:
    """How the run computes, apart from the settings of each network."""
    plan, earlier = spec.plan, recorded.settings if recorded else None
    devices = {worker.device for worker in workers}
    if len(devices) > 1:
        raise ClusterError(f"{executor.where} mixes workers with and without GPUs; choose --device cpu or cuda")
    keeps_precision = earlier is not None and spec.precision == "auto"
    return Settings(
        block=plan.grid.block,
        shard=plan.shard,
        chunk=plan.chunk,
        region=plan.grid.region,
        device=devices.pop(),
        precision=earlier.precision
        if earlier and keeps_precision
        else choose_precision(spec.precision, workers, on_gpus="float16"),
        threads=earlier.threads if earlier else threads_per_worker(workers),
        orientations=spec.orientations,
        classes=spec.classes,
        uncertainty=spec.uncertainty,
        halo_tolerance=_tolerance(spec, earlier),
    )


def _tolerance(spec: RunSpec, earlier: Settings | None) -> tuple[float, float] | None:
    """Tolerance by which the halo is, or was, measured; None if it is given."""
    if earlier is not None and spec.halo_tolerance is None:
        return earlier.halo_tolerance
    return astuple(spec.tolerance) if spec.measures_halo or spec.halo_tolerance else None


def _statistics(spec: RunSpec, progress: Progress) -> list[Statistics]:
    """The constants of each network's input; networks that normalise alike share one pass over the volume."""
    volume, computed = spec.volume, {}
    result: list[Statistics] = []
    for model in spec.models:
        normalization = model.card.normalization
        key = (normalization.mode, normalization.training if normalization.scope == "training" else ())
        if key not in computed:
            on_section = log_section_progress(progress, volume.shape[0])
            computed[key] = volume_statistics(volume, normalization, on_section)
        result.append(computed[key])
    return result


def _probes(
    spec: RunSpec,
    settings: Settings,
    workers: list[WorkerInfo],
    executor: Executor,
    statistics: list[Statistics],
) -> list[ProbeSpec]:
    """How a worker measures each network."""
    load = replace(spec.load, precision=settings.precision, device=settings.device, slots=executor.slots_per_worker)
    return [
        ProbeSpec(
            source=spec.volume.location,
            model_file=model.path,
            digest=model.digest,
            footprint=model.card.footprint,
            statistics=constants,
            engine=Engine(settings.device, settings.precision, batch=1, threads=settings.threads),
            classes=settings.classes,
            load=load,
            free=_free_bytes(workers),
        )
        for model, constants in zip(spec.models, statistics, strict=True)
    ]


def _free_bytes(workers: list[WorkerInfo]) -> tuple[int, int]:
    """Bytes that each worker may use of its host's memory and of its GPU's, which it shares with others."""
    per_host = max(Counter(worker.host for worker in workers).values())
    per_gpu = max(Counter((worker.host, worker.gpu) for worker in workers).values())
    return min(worker.memory for worker in workers) // per_host, min(w.device_memory for w in workers) // per_gpu


def log_section_progress(progress: Progress, sections: int) -> Callable[[int], None]:
    """A callback that logs the pass over the volume before the first block, every few seconds."""
    started = logged = time.monotonic()

    def on_section(done: int) -> None:
        nonlocal logged
        now = time.monotonic()
        if now - logged > _PROGRESS_SECONDS:
            logged = now
            left = (now - started) / done * (sections - done)
            progress.note(f"grey values of {done} of {sections} sections measured, {left:.0f} s left")

    return on_section
