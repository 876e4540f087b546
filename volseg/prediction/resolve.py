"""Every `auto` of a run resolved on its workers: the run record."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from volseg.inference import (
    Device,
    Engine,
    WorkerInfo,
    choose_precision,
    memory_of_each,
    threads_per_worker,
    worker_info,
)
from volseg.prediction.absence import ChunkRule, census_fields
from volseg.prediction.autotune.probe import ProbeSpec
from volseg.prediction.autotune.tuner import Tuner, WorkerKind
from volseg.prediction.constants import RunConstants, confirmed_constants, needs_pass, run_constants
from volseg.prediction.prepare import planned_blocks
from volseg.prediction.resume import refuse_if_different
from volseg.storage import (
    FORMAT,
    NUMERICS,
    RunRecord,
    Settings,
    SourceEntry,
    resampling_of,
    source_marks,
    volume_fingerprint,
)
from volseg.text import counted
from volseg.version import __version__

if TYPE_CHECKING:
    from volseg.cluster import Executor, Progress
    from volseg.prediction.prepare import RunSpec


def resolve_run(
    spec: RunSpec,
    recorded: RunRecord | None,
    executor: Executor,
    progress: Progress,
    samples: int | None = None,
    rule: ChunkRule | None = None,
) -> tuple[RunRecord, RunConstants]:
    """Decide all that the bytes depend on, from the workers' hardware and from measurements on them.

    Args:
        spec: the run.
        recorded: the record of the run to resume, which keeps its choices; None for a new run.
        executor: whose workers are asked.
        progress: receives what is measured.
        samples: sections from which the constants are computed, if the run is only calibrated; None for all.
        rule: which chunks the source may lack; None for any.

    Returns:
        The record, and the constants of each network's input.

    Raises:
        ResumeError: the recorded run had other weights, settings or source.
    """
    volume, rule = spec.volume, rule or ChunkRule()
    by_name = _workers_of_run(spec, recorded, executor, progress)
    workers = [*by_name.values()]
    source = SourceEntry(
        location=volume.location,
        shape=volume.shape,
        dtype=volume.dtype,
        voxel_nm=spec.place.voxel_nm,
        identity=volume_fingerprint(volume),
        options=spec.options,
        marks=source_marks(volume.location),
        translation_nm=spec.place.translation_nm,
        place_without_unit=None if spec.place.is_nm else (spec.place.scale, spec.place.translation),
        voxel_size_given=spec.voxel_size_given,
        resampling=resampling_of(volume),
        **census_fields(rule),
    )
    settings = _settings(spec, recorded, executor, workers)
    constants = (
        confirmed_constants(spec, recorded, source.marks, executor, progress, rule)
        if recorded
        else run_constants(spec, executor, progress, samples, rule)
    )
    covered = ["16 windows", *(["modification marks"] if source.marks else [])]
    covered += ["mean and deviation of each section"] if needs_pass(spec) else []
    source = source.model_copy(
        update={
            "empty_sections": constants.empty_sections,
            "not_finite_sections": constants.not_finite_sections,
            "fills": constants.fills,
            "covered": f"shape, type, {', '.join(covered)}",
        }
    )
    tuner = Tuner(
        plan=spec.plan,
        recorded=recorded.models if recorded else None,
        tolerance=spec.tolerance if spec.measures_halo else None,
        identity=source.identity,
        kinds=_kinds_of(by_name),
        executor=executor,
        progress=progress,
    )
    probes = _probes(spec, settings, workers, executor, constants)
    networks = tuner.tune_precision(probes, may_lower=spec.precision == "auto")
    planned = planned_blocks(spec)
    mask = spec.mask.entry if spec.mask else None
    if mask is not None and planned is not None:
        mask = mask.model_copy(update={"coarser_blocks": len(planned) - mask.blocks})
    requested = RunRecord(
        format=FORMAT,
        numerics=NUMERICS,
        source=source,
        models=tuner.model_entries(networks, [model.card for model in spec.models]),
        settings=settings.model_copy(update={"precision": networks[0].probe.engine.precision}),
        version=__version__,
        torch=", ".join(sorted({worker.torch for worker in workers})),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        mask=mask,
    )
    if recorded is None:
        return requested, constants
    refuse_if_different(recorded, requested, str(spec.target))
    if recorded.torch != requested.torch:
        progress.note(
            f"the run was started with torch {recorded.torch} and is resumed with {requested.torch}: blocks of the "
            "two may differ by a grey level"
        )
    return recorded, constants


def _workers_of_run(
    spec: RunSpec, recorded: RunRecord | None, executor: Executor, progress: Progress
) -> dict[str, WorkerInfo]:
    """The workers that compute, by name: those without a GPU are left out beside others, unless any may take part.

    Raises:
        ConfigError: a GPU is asked for, and no worker has one.
    """
    device = recorded.settings.device if recorded is not None and spec.device == "auto" else spec.device
    found: dict[str, WorkerInfo] = executor.run_on_each(worker_info, "auto" if device == "cuda" else device)
    without = [name for name, worker in found.items() if worker.device == "cpu"]
    if device in ("cpu", "any") or len(without) == len(found):
        if device == "cuda":
            executor.run_on_all(worker_info, device)
        return found
    for name in without:
        executor.leave_out(name)
    if without:
        progress.note(
            f"{counted(len(without), 'worker')} without a GPU, such as {without[0]}, get no blocks; --device any uses "
            "them too"
        )
    return {name: worker for name, worker in found.items() if name not in without}


def _kinds_of(workers: dict[str, WorkerInfo]) -> list[WorkerKind]:
    """Kinds of workers, the most numerous first."""
    kinds = Counter(worker.kind for worker in workers.values())
    found = []
    for kind, _ in kinds.most_common():
        own = {name: worker for name, worker in workers.items() if worker.kind == kind}
        free = _free_bytes([*workers.values()], [*own.values()])
        found.append(WorkerKind(kind, next(iter(own.values())).device, tuple(own), free))
    return found


def _settings(spec: RunSpec, recorded: RunRecord | None, executor: Executor, workers: list[WorkerInfo]) -> Settings:
    """How the run computes, apart from the settings of each network."""
    plan, earlier = spec.plan, recorded.settings if recorded else None
    devices: set[Literal["cpu", "cuda", "any"]] = {worker.device for worker in workers}
    if earlier is not None and earlier.device == "any":
        devices = {"any"}
    keeps_precision = earlier is not None and spec.precision == "auto"
    return Settings(
        block=plan.grid.block,
        shard=plan.shard,
        chunk=plan.chunk,
        region=plan.grid.region,
        device="any" if len(devices) > 1 else devices.pop(),
        precision=earlier.precision
        if earlier and keeps_precision
        else choose_precision(spec.precision, workers, on_gpus="float16"),
        threads=earlier.threads if earlier else threads_per_worker(workers),
        orientations=spec.orientations,
        classes=spec.classes,
        uncertainty=spec.uncertainty,
        levels=plan.levels,
        map=spec.map,
        halo_tolerance=_tolerance(spec, earlier),
    )


def _tolerance(spec: RunSpec, earlier: Settings | None) -> tuple[float, float] | None:
    """Tolerance by which the halo is, or was, measured; None if it is given."""
    if earlier is not None and spec.halo_tolerance is None:
        return earlier.halo_tolerance
    return astuple(spec.tolerance) if spec.measures_halo or spec.halo_tolerance else None


def _probes(
    spec: RunSpec,
    settings: Settings,
    workers: list[WorkerInfo],
    executor: Executor,
    constants: RunConstants,
) -> list[ProbeSpec]:
    """How a worker measures each network."""
    # Of a run on any device every worker has a CPU; GPUs are checked when they open the run.
    device: Device = "cpu" if settings.device == "any" else settings.device
    load = replace(spec.load, precision=settings.precision, device=device, slots=executor.slots_per_worker)
    return [
        ProbeSpec(
            source=spec.source,
            model_file=model.path,
            digest=model.digest,
            footprint=model.card.footprint,
            statistics=table,
            engine=Engine(device, settings.precision, batch=1, threads=settings.threads),
            classes=settings.classes,
            load=load,
            free=_free_bytes(workers, workers),
        )
        for model, table in zip(spec.models, constants.tables, strict=True)
    ]


def _free_bytes(workers: list[WorkerInfo], own: list[WorkerInfo]) -> tuple[int, int]:
    """Bytes that each of some workers may use of its host's memory and of its GPU's, which it shares with others."""
    per_gpu = max(Counter((worker.host, worker.gpu) for worker in own).values())
    return memory_of_each(workers), min(w.device_memory for w in own) // per_gpu
