"""What a run freezes before its first block: all that its bytes depend on, as the workers say of themselves."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, astuple, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from volseg.cluster import sections_told
from volseg.errors import ClusterError
from volseg.halos import HaloChoice, Sampled, choose_halo, measure_halo
from volseg.inference import (
    ORIENTATIONS,
    Engine,
    Load,
    TileChoice,
    WorkerFacts,
    choose_precision,
    choose_tiles,
    threads_each,
    worker_facts,
)
from volseg.pipeline.halo import Tolerance, candidate_halos
from volseg.storage import (
    HaloPoint,
    ModelEntry,
    RunRecord,
    Settings,
    SourceEntry,
    source_identity,
    volume_statistics,
)
from volseg.storage.record import refuse_if_different
from volseg.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from volseg.blocks import Tiling
    from volseg.cluster import Cluster, Progress
    from volseg.models import ModelHeader
    from volseg.ops import Statistics
    from volseg.pipeline import Plan
    from volseg.runfiles import PredictConfig
    from volseg.storage import BlockMask, Volume

_ROUNDS = 6
"""How often halo and tile are chosen after one another."""


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
        grid, halo = self.plan.grid, self.plan.halo
        whole = max((grid.box(number) for number in (0, grid.count - 1)), key=lambda box: box.voxels)
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
    asked = RunRecord(
        source=source,
        models=_models(prepared, settings, source.identity, cluster, facts, progress),
        settings=settings,
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
        precision=was.precision if was and config.precision == "auto" else choose_precision(config.precision, facts),
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


def _models(
    prepared: Prepared,
    settings: Settings,
    identity: str,
    cluster: Cluster,
    facts: list[WorkerFacts],
    progress: Progress,
) -> tuple[ModelEntry, ...]:
    """What each network is run with: its constants, its halo, its tile."""
    recorded, plan = prepared.recorded, prepared.plan
    statistics = [entry.statistics for entry in recorded.models] if recorded else _statistics(prepared, progress)
    load, free = load_of(prepared, settings, cluster), _free(facts)
    files = [model.path for model in prepared.models]
    engine = Engine(settings.device, settings.precision, batch=1, threads=settings.threads)

    def tiles_of(plan: Plan) -> tuple[TileChoice, ...]:
        if recorded:
            asked = replace(load, batch=max(was.batch for was in recorded.models))
            tilings: list[tuple[Tiling, ...]] = [
                (replace(was.tiling, core=plan.tile or was.tile),) for was in recorded.models
            ]
            again: tuple[TileChoice, ...] = cluster.on_one(choose_tiles, files, plan.grid, tilings, asked, free)
            return tuple(
                replace(tile, batch=was.batch, kvoxel_s=was.kvoxel_s)
                for tile, was in zip(again, recorded.models, strict=True)
            )
        tilings = [tuple(plan.tilings(number)) for number in range(len(files))]
        made: tuple[TileChoice, ...] = cluster.on_one(choose_tiles, files, plan.grid, tilings, load, free, engine)
        return made

    choices = [HaloChoice(halo, (), "") for halo in plan.halos]
    if prepared.measures:
        source, classes = prepared.volume.location, settings.classes
        samples = [
            Sampled(source, model.path, model.digest, model.card.footprint, constants, engine, classes, load, free)
            for model, constants in zip(prepared.models, statistics, strict=True)
        ]
        choices, tiles = _measured(prepared, samples, identity, cluster, progress, tiles_of)
    else:
        tiles = tiles_of(plan)
    return tuple(
        ModelEntry(
            location=model.path,
            name=model.card.name,
            digest=model.digest,
            footprint=model.card.footprint,
            normalization=model.card.normalization.mode,
            halo=choice.halo,
            halo_curve=tuple(HaloPoint(**asdict(point)) for point in choice.curve),
            tile=tile.core,
            batch=tile.batch,
            kvoxel_s=tile.kvoxel_s,
            statistics=constants,
        )
        for model, choice, tile, constants in zip(prepared.models, choices, tiles, statistics, strict=True)
    )


def _measured(
    prepared: Prepared,
    samples: list[Sampled],
    identity: str,
    cluster: Cluster,
    progress: Progress,
    tiles_of: Callable[[Plan], tuple[TileChoice, ...]],
) -> tuple[list[HaloChoice], tuple[TileChoice, ...]]:
    """Halos that fit the tiles, and tiles that fit the halos: a small tile is mostly border and needs more halo."""
    plan, tolerance = prepared.plan, prepared.tolerance
    cores = [next(plan.tilings(number)).core for number in range(len(samples))]
    measured = [
        measure_halo(sampled, plan.grid, core, identity, cluster, progress)
        for sampled, core in zip(samples, cores, strict=True)
    ]
    for _ in range(_ROUNDS):
        choices = [
            choose_halo(found, tolerance, sampled.footprint, core)
            for found, sampled, core in zip(measured, samples, cores, strict=True)
        ]
        tiles = tiles_of(plan.with_halos(tuple(choice.halo for choice in choices)))
        if [tile.core for tile in tiles] == cores:
            break
        cores = [tile.core for tile in tiles]
    else:
        choices = [HaloChoice(halo, (), "exact: no tile and halo were found that fit together") for halo in plan.halos]
        tiles = tiles_of(plan)
    for model, choice in zip(prepared.models, choices, strict=True):
        progress.note(f"halo {','.join(map(str, choice.halo))} for {model.card.name}: {choice.reason}")
    return choices, tiles


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


def load_of(prepared: Prepared, settings: Settings, cluster: Cluster) -> Load:
    """What a worker of a cluster is asked to hold, one tile a pass."""
    return Load(
        batch=1,
        precision=settings.precision,
        source_item=int(np.dtype(prepared.volume.dtype).itemsize),
        slots=cluster.slots_each,
        device=settings.device,
        classes=len(settings.classes),
        estimates=prepared.estimates,
        spread=settings.uncertainty,
    )


def _free(facts: list[WorkerFacts]) -> tuple[int, int]:
    """Bytes that each worker may take of its host's memory and of its GPU's, shared among those that use it."""
    per_host = max(Counter(fact.host for fact in facts).values())
    per_gpu = max(Counter((fact.host, fact.gpu) for fact in facts).values())
    return min(fact.memory for fact in facts) // per_host, min(fact.device_memory for fact in facts) // per_gpu
