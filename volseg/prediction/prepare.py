"""Options, source and models, checked and planned before anything is started or written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from volseg.blocks import BlockSet, Box, PyramidGrid, format_zyx, parse_roi, pyramid_levels
from volseg.cluster import check_cluster
from volseg.config.tolerance import Tolerance
from volseg.errors import REDACTED, ConfigError, TargetError
from volseg.inference import ORIENTATIONS, Load, Orientations, Precision
from volseg.models import ModelHeader, check_ensemble, read_card, resolve_classes, resolve_model
from volseg.models.compatibility import refuse_dtype_mismatch, refuse_uneven_rotation, refuse_voxel_size_mismatch
from volseg.pipeline import Plan, PlanRequest, plan_run
from volseg.prediction.autotune.halo_curve import candidate_halos
from volseg.prediction.resume import refuse_other_inputs
from volseg.prediction.source import MissingChunks, RunSource, missing_chunks, open_run_source, refuse_undecodable
from volseg.storage import (
    BlockMask,
    MapEntry,
    Place,
    Readable,
    ReadOptions,
    RunRecord,
    VolumeRef,
    claim_output,
    is_target,
    open_mask,
    place_of,
    read_bytes_per_voxel,
    read_record,
    refuse_overlap,
    resampling_of,
    target_exists,
)

if TYPE_CHECKING:
    from volseg.config import Cluster, PredictConfig
    from volseg.storage import TargetPath


@dataclass(frozen=True)
class RunSpec:
    """A run that was checked; nothing of it is started or written.

    Attributes:
        volume: the source.
        options: what the user states of it.
        place: its voxel size and translation.
        map: what the map is, if its voxels are not those of `volume`.
        voxel_size_given: whether the user stated the voxel size.
        models: the networks, whose estimates are averaged.
        classes: of the models, to write.
        plan: the blocks; the halos are exact if they are still to be measured.
        mask: of the blocks to compute; None for all.
        target: path of the map.
        overwrite: replace a Zarr at that path.
        cluster: as for `connect`.
        workers: of a local cluster, or jobs; None for the default.
        tls: folder of the certificates for a scheduler's `tls://` address.
        device: requested.
        precision: requested.
        orientations: in which each tile is predicted.
        uncertainty: write the standard deviation of the estimates too.
        measures_halo: whether the halo is measured on a worker when the run starts.
        halo_tolerance: requested for the halo; None for the default.
        missing_chunks: what the user states of chunks that a Zarr lacks; None to count them.
        max_failed: blocks that the run may give up; None for the default.
        block_timeout: seconds that a block may take; None to derive it from the blocks that are done.
        load: of a worker with one slot, on a CPU in float32; the run's own device, precision and slots replace these.
    """

    volume: Readable
    options: ReadOptions
    place: Place
    map: MapEntry | None
    voxel_size_given: bool
    models: tuple[ModelHeader, ...]
    classes: tuple[str, ...]
    plan: Plan
    mask: BlockMask | None
    target: TargetPath
    overwrite: bool
    cluster: Cluster
    workers: int | None
    tls: str | None
    device: Literal["auto", "any", "cpu", "cuda"]
    precision: Literal["auto"] | Precision
    orientations: Orientations
    uncertainty: bool
    measures_halo: bool
    halo_tolerance: Tolerance | None
    missing_chunks: MissingChunks
    max_failed: int | None
    block_timeout: float | None
    load: Load

    @property
    def source(self) -> VolumeRef:
        """The source, for workers to open."""
        return VolumeRef(self.volume.location, self.options, resampling_of(self.volume))

    @property
    def map_place(self) -> Place:
        """Voxel size and translation of the map."""
        return Place.of_nm(self.map.voxel_nm, self.map.translation_nm) if self.map else self.place

    @property
    def model_files(self) -> tuple[str, ...]:
        """Paths of the models, in their order."""
        return tuple(model.path for model in self.models)

    @property
    def tolerance(self) -> Tolerance:
        """Tolerance of a measured halo."""
        return self.halo_tolerance or Tolerance()


def prepare(config: PredictConfig) -> tuple[RunSpec, RunRecord | None]:
    """Open the inputs, plan the blocks and refuse what cannot work; loads neither torch nor Dask.

    Returns:
        The run, and the record of the run that it resumes.

    Raises:
        VolsegError: the first thing that does not fit.
    """
    _refuse_options(config)
    target = _claim_target(config)
    refuse_overlap("source", config.source, target)
    resumes = config.resume or config.part is not None
    recorded = read_record(target) if resumes and target_exists(target) else None
    models = tuple(read_card(resolve_model(name), verify=True) for name in config.model)
    source = open_run_source(config, models, recorded, target)
    volume, place = source.volume, source.place
    _refuse_models(config, models, volume, place, target)
    classes = resolve_classes(models, config.classes)
    check_ensemble(models, config.orientations, uncertainty=config.uncertainty)
    if recorded is not None:
        refuse_other_inputs(recorded, volume, models, str(target))
    footprints = tuple(model.card.footprint for model in models)
    written = source.map_volume
    plan = plan_run(written.shape, written.chunk, footprints, _plan_request(config, source, recorded))
    refuse_undecodable(volume, plan.network_grid.region.start)
    mask = _open_mask(config, recorded, plan, target)
    load = Load(
        batch=1,
        precision="float32",
        source_item=read_bytes_per_voxel(volume),
        slots=1,
        device="cpu",
        classes=len(classes),
        estimates=len(models) * len(ORIENTATIONS[config.orientations]),
        with_std=config.uncertainty,
        enlargement=plan.output.enlargement if plan.output else 1.0,
    )
    has_choice = any(len(candidate_halos(footprint)) > 1 for footprint in footprints)
    spec = RunSpec(
        volume=volume,
        options=source.options,
        place=place,
        map=source.map,
        voxel_size_given=source.voxel_size_given,
        models=models,
        classes=classes,
        plan=replace(plan, warnings=(*plan.warnings, *source.warnings)),
        mask=mask,
        target=target,
        overwrite=config.overwrite,
        cluster=config.cluster,
        workers=config.workers,
        tls=config.tls,
        device=config.device,
        precision=config.precision,
        orientations=config.orientations,
        uncertainty=config.uncertainty,
        measures_halo=config.halo == "auto" and recorded is None and has_choice,
        halo_tolerance=config.halo_tolerance,
        missing_chunks=missing_chunks(config, volume, recorded),
        max_failed=config.max_failed,
        block_timeout=config.block_timeout,
        load=load,
    )
    return spec, recorded


def _refuse_options(config: PredictConfig) -> None:
    check_cluster(config.cluster, config.workers)
    if config.halo_tolerance is not None and config.halo != "auto":
        halo = config.halo if isinstance(config.halo, str) else format_zyx(config.halo)
        raise ConfigError(f"--halo-tolerance needs --halo auto; leave it out with --halo {halo}")
    if config.resume and config.overwrite:
        raise ConfigError("--resume and --overwrite contradict each other; give one of them")
    if config.part is not None and config.overwrite:
        raise ConfigError("--part with --overwrite would replace what other parts wrote; delete the target instead")


def _claim_target(config: PredictConfig) -> TargetPath:
    """Path of the target, which is free, or may be replaced or resumed."""
    resumes = config.resume or config.part is not None
    target = claim_output(config.target, overwrite=config.overwrite, resume=resumes)
    if target_exists(target) and resumes and not is_target(target):
        raise TargetError(f"target {target} holds no run of volseg to resume; choose another path")
    return target


def _refuse_models(
    config: PredictConfig, models: tuple[ModelHeader, ...], volume: Readable, place: Place, target: TargetPath
) -> None:
    """Refuse models that do not suit the volume."""
    levels_nm = getattr(volume, "levels_nm", ()) if place == place_of(volume) else ()
    for model in models:
        refuse_overlap("model", model.path, target)
        if not config.ignore_voxel_size:
            refuse_voxel_size_mismatch(place.voxel_nm, model.card.voxel_nm, model.card.footprint, levels_nm)
        refuse_dtype_mismatch(volume.dtype, model.card.normalization)
        if config.orientations == "all":
            refuse_uneven_rotation(model.card.footprint)


def planned_blocks(spec: RunSpec) -> BlockSet | None:
    """The blocks of all levels that are part of a run; None if all are, which is a run without a mask."""
    if spec.mask is None:
        return None
    plan = spec.plan
    planned = spec.mask.blocks()
    levels = pyramid_levels(plan.grid.shape, plan.shard, plan.chunk, plan.levels)
    planned.update(PyramidGrid(plan.grid, levels).above(planned))
    return planned


def _plan_request(config: PredictConfig, source: RunSource, recorded: RunRecord | None) -> PlanRequest:
    """What to plan; a resumed run takes what is not requested from its record."""
    settings = recorded.settings if recorded else None
    region: Box | None = settings.region if settings else None
    if config.roi is not None:
        region = parse_roi(config.roi, source.map_volume.shape)
    return PlanRequest(
        block=config.block or (settings.block if settings else None),
        shard=config.shard or (settings.shard if settings else None),
        chunk=config.chunk or (settings.chunk if settings else None),
        # A halo that is still to be measured is planned at its largest.
        halo="exact" if config.halo == "auto" else config.halo,
        halos=tuple(entry.halo for entry in recorded.models) if recorded and config.halo == "auto" else None,
        region=region,
        tile=config.tile,
        levels=config.levels if settings is None or config.levels is not None else settings.levels,
        voxel_nm=source.map_place.voxel_nm,
        output=source.output,
    )


def _open_mask(config: PredictConfig, recorded: RunRecord | None, plan: Plan, target: TargetPath) -> BlockMask | None:
    """The mask that was requested, or else that of the record."""
    location = config.mask or (recorded.mask.location if recorded and recorded.mask else None)
    if location is None:
        return None
    if config.mask is None and REDACTED in location:
        raise ConfigError(f"the run's mask was {location}, and its credentials are not stored; give it with --mask")
    mask = open_mask(location, plan.grid, plan.output)
    for path in (mask.volume.location, location):
        refuse_overlap("mask", path, target)
    return mask
