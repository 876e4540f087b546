"""What a run freezes before its first block: all that its bytes depend on, as the workers say of themselves."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from volseg.cluster import sections_told
from volseg.errors import ClusterError
from volseg.halos import Sampled
from volseg.inference import (
    ORIENTATIONS,
    Engine,
    Load,
    WorkerFacts,
    choose_precision,
    threads_each,
    worker_facts,
)
from volseg.pipeline.halo import Tolerance, candidate_halos
from volseg.readying import Readying
from volseg.storage import (
    RunRecord,
    Settings,
    SourceEntry,
    source_identity,
    volume_statistics,
)
from volseg.storage.record import refuse_if_different
from volseg.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.cluster import Cluster, Progress
    from volseg.inference import Device, Precision
    from volseg.models import ModelHeader
    from volseg.ops import Statistics
    from volseg.pipeline import Plan
    from volseg.runfiles import PredictConfig
    from volseg.storage import BlockMask, Volume


@dataclass(frozen=True)
class Prepared:
    """A run that was found sound before anything was started or written.

    Attributes:
        config: what the user asked for.
        volume: the source.
        models: the networks whose estimates are averaged.
        classes: what is written of theirs.
        plan: the blocks; its halos are exact where they are still to be measured.
        target: where.
        recorded: the record of the run to go on with; None for a new one.
        mask: the blocks to compute; None for all.
    """

    config: PredictConfig
    volume: Volume
    models: tuple[ModelHeader, ...]
    classes: tuple[str, ...]
    plan: Plan
    target: Path
    recorded: RunRecord | None
    mask: BlockMask | None = None

    @property
    def measures(self) -> bool:
        """Whether the halo is still to be measured, on a worker."""
        several = any(len(candidate_halos(model.card.footprint)) > 1 for model in self.models)
        return self.config.halo == "auto" and self.recorded is None and several

    @property
    def tolerance(self) -> Tolerance:
        """What counts as good enough for a measured halo."""
        return self.config.halo_tolerance or Tolerance()

    def figures(self) -> dict[str, object]:
        """What the run would do, in numbers; voxels are those of the source's blocks and halos, tiles aside."""
        grid, halo, whole = self.plan.grid, self.plan.halo, self.plan.grid.largest
        return {
            "source": self.volume.location,
            "shape": list(self.volume.shape),
            "target": str(self.target),
            "models": [model.card.name for model in self.models],
            "orientations": self.config.orientations,
            "uncertainty": self.config.uncertainty,
            "classes": list(self.classes),
            "estimates_averaged": self.estimates,
            "blocks": grid.count,
            "block": list(grid.block),
            "shard": list(self.plan.shard),
            "chunk": list(self.plan.chunk),
            "halo": list(halo),
            "halo_is": "at most; measured on a worker when the run starts" if self.measures else "as it will be",
            "region": str(grid.region),
            "voxels_to_write": grid.region.voxels * len(self.classes),
            "read_for_each_written": round(whole.grown(halo).voxels / whole.voxels, 2),
        }

    @property
    def estimates(self) -> int:
        """How many estimates of each voxel are averaged."""
        return len(self.models) * len(ORIENTATIONS[self.config.orientations])


def freeze(prepared: Prepared, cluster: Cluster, progress: Progress) -> RunRecord:
    """Decide all that the bytes depend on, with what the workers say of themselves.

    What was left to volseg is taken from the record of a run that goes on.

    Raises:
        ResumeError: the recorded run had other weights, settings or source.
    """
    volume, recorded = prepared.volume, prepared.recorded
    facts: list[WorkerFacts] = cluster.on_each(worker_facts, prepared.config.device)
    source = SourceEntry(
        location=volume.location,
        shape=volume.shape,
        dtype=volume.dtype,
        voxel_nm=volume.voxel_nm,
        identity=source_identity(volume),
    )
    settings = _settings(prepared, cluster, facts)
    statistics = [entry.statistics for entry in recorded.models] if recorded else _statistics(prepared, progress)
    readying = Readying(
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


def _settings(prepared: Prepared, cluster: Cluster, facts: list[WorkerFacts]) -> Settings:
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


def _tolerance(prepared: Prepared, was: Settings | None) -> tuple[float, float] | None:
    """What a halo was, or is to be, chosen by; None where it is not measured."""
    asked = prepared.config.halo_tolerance
    if was is not None and asked is None:
        return was.halo_tolerance
    return astuple(prepared.tolerance) if prepared.measures or asked else None


def _statistics(prepared: Prepared, progress: Progress) -> list[Statistics]:
    """The constants of each network's input; networks that normalise alike share one pass over the volume."""
    volume, known = prepared.volume, {}
    result: list[Statistics] = []
    for model in prepared.models:
        how = model.card.normalization
        key = (how.mode, how.training if how.mode == "fixed" else ())
        if key not in known:
            known[key] = volume_statistics(volume, how, sections_told(progress, volume.shape[0]))
        result.append(known[key])
    return result


def load_of(prepared: Prepared, precision: Precision, device: Device, slots: int) -> Load:
    """What each worker is asked to hold, one tile at a time."""
    return Load(
        batch=1,
        precision=precision,
        source_item=int(np.dtype(prepared.volume.dtype).itemsize),
        slots=slots,
        device=device,
        classes=len(prepared.classes),
        estimates=prepared.estimates,
        spread=prepared.config.uncertainty,
    )


def _sampled(
    prepared: Prepared,
    settings: Settings,
    facts: list[WorkerFacts],
    cluster: Cluster,
    statistics: list[Statistics],
) -> list[Sampled]:
    """What a worker needs to know of each network to measure it."""
    load = load_of(prepared, settings.precision, settings.device, cluster.slots_each)
    return [
        Sampled(
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


def _free(facts: list[WorkerFacts]) -> tuple[int, int]:
    """Bytes that each worker may take of its host's memory and of its GPU's, shared among those that use it."""
    per_host = max(Counter(fact.host for fact in facts).values())
    per_gpu = max(Counter((fact.host, fact.gpu) for fact in facts).values())
    return min(fact.memory for fact in facts) // per_host, min(fact.device_memory for fact in facts) // per_gpu
