"""Options, source and models checked and planned, before anything is started or written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import Box, parse_roi
from volseg.config.tolerance import Tolerance
from volseg.errors import ConfigError, ResumeError, TargetError
from volseg.inference import ORIENTATIONS, Load
from volseg.models import chosen_classes, read_card, refuse_lone_estimate, resolve_model
from volseg.models.compatibility import refuse_other_type, refuse_other_voxels, refuse_uneven
from volseg.pipeline import Request, plan_run
from volseg.prediction.autotune.halo_curve import candidate_halos
from volseg.storage import (
    RunRecord,
    is_target,
    open_mask,
    open_volume,
    read_record,
    refuse_other_than_zarr,
    refuse_overlap,
    refuse_unwritable,
)

if TYPE_CHECKING:
    from volseg.blocks import BlockGrid, Zyx
    from volseg.config import PredictConfig
    from volseg.inference import Device, Precision
    from volseg.models import ModelHeader
    from volseg.pipeline import Plan
    from volseg.storage import BlockMask, Volume


def prepare(config: PredictConfig) -> RunSpec:
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
    return RunSpec(config, volume, models, classes, plan, target, recorded, mask)


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


@dataclass(frozen=True)
class RunSpec:
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


def load_of(prepared: RunSpec, precision: Precision, device: Device, slots: int) -> Load:
    """What each worker is asked to hold, one tile at a time."""
    return Load(
        batch=1,
        precision=precision,
        source_item=int(np.dtype(prepared.volume.dtype).itemsize),
        slots=slots,
        device=device,
        classes=len(prepared.classes),
        estimates=prepared.estimates,
        with_std=prepared.config.uncertainty,
    )
