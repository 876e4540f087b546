"""What a run freezes before its first block: all that its bytes depend on, as the workers say of themselves."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from volseg.errors import ClusterError
from volseg.inference import Load, TileChoice, WorkerFacts, choose_precision, choose_tile, threads_each, worker_facts
from volseg.storage import ModelEntry, RunRecord, Settings, SourceEntry, source_identity, volume_statistics
from volseg.storage.record import refuse_if_different
from volseg.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from volseg.cluster import Cluster, Progress
    from volseg.models import ModelHeader
    from volseg.pipeline import Plan
    from volseg.runfiles import PredictConfig
    from volseg.storage import Volume

_TELL_SECONDS = 5.0
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


def freeze(prepared: Prepared, cluster: Cluster, progress: Progress) -> RunRecord:
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
        settings=_settings(prepared, cluster, facts, progress),
        version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if recorded is None:
        return asked
    refuse_if_different(recorded, asked, str(prepared.target))
    return recorded


def _told(progress: Progress, sections: int) -> Callable[[int], None]:
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


def _settings(prepared: Prepared, cluster: Cluster, facts: list[WorkerFacts], progress: Progress) -> Settings:
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
    per_gpu = max(Counter((fact.host, fact.gpu) for fact in facts).values())
    free = (min(fact.memory for fact in facts) // per_host, min(fact.device_memory for fact in facts) // per_gpu)
    tilings = (recorded.tiling,) if recorded else tuple(plan.tilings())
    choice: TileChoice = cluster.on_one(choose_tile, prepared.model.path, plan.grid, tilings, load, free)
    normalization, _tell = prepared.model.card.normalization, _told(progress, volume.shape[0])
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
        statistics=was.statistics
        if was
        else volume_statistics(volume, normalization, _told(progress, volume.shape[0])),
    )
