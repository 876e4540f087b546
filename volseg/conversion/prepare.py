"""Options and source of a conversion, checked and planned before anything is started or written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import Box, parse_roi
from volseg.cluster import check_cluster
from volseg.conversion.output import output_entry
from volseg.conversion.place import target_place, target_resampling
from volseg.conversion.source import SourceRef, open_source, source_notes
from volseg.errors import ConfigError, TargetError
from volseg.ops import Rescale
from volseg.storage import (
    Chunked,
    MissingChunks,
    ObjectPath,
    ReadOptions,
    ResampledVolume,
    in_use,
    is_running,
    journal_folder,
    local_output,
    parse_axes,
    place_of,
    refuse_overlap,
)
from volseg.storage.conversion_record import ConversionRecord, OutputEntry
from volseg.storage.object_client import is_object_url, split_url
from volseg.storage.object_target import claim_object
from volseg.storage.paths import refuse_unwritable
from volseg.storage.publish import settle
from volseg.storage.unfinished import refuse_in_use, unfinished, work_folder
from volseg.storage.writers import FORMATS, format_of_name
from volseg.storage.writers.base import refuse_missing_extra
from volseg.storage.writers.ome_zarr import recorded_conversion

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.blocks import Zyx
    from volseg.config import Cluster, ConvertConfig
    from volseg.ops import Resampling
    from volseg.storage import Readable, TargetPath
    from volseg.storage.writers.base import Format

_HDF5 = re.compile(r"(?P<file>.+\.(?:h5|hdf5|hdf))(?::(?P<dataset>.+))?", re.IGNORECASE)
_SERIAL_BYTES = 1 << 28
"""Voxels of so many bytes are copied before local workers have started."""


@dataclass(frozen=True)
class ConversionSpec:
    """A conversion that was checked; nothing of it is started or written.

    Attributes:
        volume: the source.
        options: what the user states of it.
        voxel_size_given: whether the user stated the voxel size.
        roi: part of the source that is converted.
        resampling: of that part to another voxel size; None if there is none.
        output: the volume to write.
        target: its path.
        overwrite: replace what is there.
        missing_chunks: what the user states of chunks that a Zarr lacks.
        cluster: as for `connect`.
        workers, tls: as for `connect`.
        notes: what is assumed, a line each.
    """

    volume: Readable
    options: ReadOptions
    voxel_size_given: bool
    roi: Box
    resampling: Resampling | None
    output: OutputEntry
    target: TargetPath
    overwrite: bool
    missing_chunks: MissingChunks
    cluster: Cluster
    workers: int | None
    tls: str | None
    notes: tuple[str, ...]

    @property
    def format(self) -> Format:
        """What writes the volume."""
        return FORMATS[self.output.format]

    @property
    def source(self) -> SourceRef:
        """The source, for workers to open."""
        return SourceRef(self.volume.location, self.options, self.volume.shape, self.volume.dtype)

    @property
    def rescale(self) -> Rescale:
        """How voxels change their type."""
        return Rescale(self.volume.dtype, self.output.dtype, self.output.limits)


def prepare(config: ConvertConfig) -> tuple[ConversionSpec, ConversionRecord | None]:
    """Open the source, plan the blocks and refuse what cannot work.

    Returns:
        The conversion, and the record of the one that it resumes.

    Raises:
        VolsegError: the first thing that does not fit.
    """
    _refuse_options(config)
    target, dataset = _split(config.target)
    begun = unfinished(target) if config.resume else None
    recorded, replaces = begun or (complete_conversion(target) if config.resume else None, False)
    before = recorded.output if recorded else None
    name = FORMATS.check(config.format or (before.format if before else format_of_name(target)))
    if isinstance(target, ObjectPath) and name != "ome-zarr":
        raise ConfigError(
            f"--format {name} is written to paths only; give --format ome-zarr for {target}, or a path to copy from"
        )
    _refuse_taken(config, target, FORMATS[name], recorded, replaces=replaces)
    refuse_overlap("source", config.source, target)
    options = _read_options(config, recorded)
    volume = open_source(config.source, options, config.scale_level)
    refuse_overlap("source", volume.location, target)
    if config.missing_chunks is not None and not isinstance(volume, Chunked):
        raise ConfigError(
            f"--missing-chunks does not apply to {volume.location}, whose chunks have no names; leave it out"
        )
    voxel_nm = config.voxel_size
    if voxel_nm is None and recorded is not None and recorded.source.voxel_size_given:
        voxel_nm = recorded.source.voxel_nm
    place = target_place(config.source, place_of(volume), voxel_nm)
    roi = _region(config, volume.shape, recorded)
    resampling = target_resampling(place, roi.shape, volume.dtype, config, recorded)
    part = place.moved(roi.start), roi.shape
    if resampling is not None:
        part = part[0].resampled(resampling.target_nm), resampling.shape(roi.shape)
    view = volume if resampling is None else ResampledVolume(volume, resampling, roi)
    output, notes = output_entry(config, view, part, (name, dataset, target), before)
    return (
        ConversionSpec(
            volume=volume,
            options=options,
            voxel_size_given=voxel_nm is not None,
            roi=roi,
            resampling=resampling,
            output=output,
            target=target,
            overwrite=config.overwrite or replaces,
            missing_chunks=config.missing_chunks or (recorded.source.missing_chunks if recorded else None),
            cluster=_cluster(config, output) if config.cluster is None else config.cluster,
            workers=config.workers,
            tls=config.tls,
            notes=(*([str(resampling)] if resampling else []), *notes, *source_notes(volume)),
        ),
        recorded,
    )


def complete_conversion(target: TargetPath) -> ConversionRecord | None:
    """The record of a complete conversion to OME-Zarr; None if there is none that can be read."""
    attributes = recorded_conversion(target)
    try:
        return None if attributes is None else ConversionRecord.from_attributes(attributes)
    except ValueError:
        return None


def _refuse_options(config: ConvertConfig) -> None:
    if config.cluster is not None:
        check_cluster(config.cluster, config.workers)
    if config.resume and config.overwrite:
        raise ConfigError("--resume and --overwrite contradict each other; give one of them")
    if config.range is not None and config.dtype is None and not config.resume:
        low, high = config.range
        raise ConfigError(f"--range {low:g},{high:g} needs a --dtype, such as uint8")
    if config.no_shards and config.shard is not None:
        raise ConfigError("--shard and --no-shards contradict each other; give one of them")


def _split(target: str) -> tuple[TargetPath, str]:
    """Path of the target, and the name of the dataset in an HDF5 file."""
    match = _HDF5.fullmatch(target)
    file, dataset = (target, "") if match is None else (match["file"], (match["dataset"] or "").strip("/"))
    return ObjectPath(*split_url(file)) if is_object_url(file) else local_output(file), dataset


def _refuse_taken(
    config: ConvertConfig, target: TargetPath, fmt: Format, recorded: ConversionRecord | None, *, replaces: bool
) -> None:
    """Refuse a path that may not be created, replaced or resumed.

    Raises:
        TargetError: says what is there, and the way out.
    """
    if isinstance(target, ObjectPath):
        claim_object(target, overwrite=config.overwrite, resume=recorded is not None or None)
        return
    settle(target)
    refuse_missing_extra(config.format or format_of_name(target), fmt.extra)
    refuse_in_use(target)
    if is_running(journal_folder(target)):
        raise TargetError(in_use(target))
    if not (config.overwrite or config.resume) and unfinished(target) is not None:
        raise TargetError(
            f"an unfinished conversion to {target} lies in {work_folder(target)}; give --resume to finish it, or "
            "--overwrite to start again"
        )
    if target.exists() and not replaces:
        if not (config.overwrite or recorded is not None):
            raise TargetError(f"target {target} exists already; give --overwrite to replace it, or choose another path")
        if config.overwrite:
            refuse_other(fmt, target)
        elif unfinished(target) is not None:
            raise TargetError(f"target {target} appeared meanwhile; move it away, then rerun with --resume")
    refuse_unwritable(target)


def refuse_other(fmt: Format, target: Path) -> None:
    """Refuse to replace what is not of a format.

    Raises:
        TargetError: it is not.
    """
    if target.exists() and not fmt.owns(target):
        raise TargetError(
            f"{target} is of another kind than is written, so --overwrite does not replace it; delete it or choose "
            "another path"
        )


def _read_options(config: ConvertConfig, recorded: ConversionRecord | None) -> ReadOptions:
    before = recorded.source.options if recorded else ReadOptions()
    return ReadOptions(
        before.axes if config.axes is None else parse_axes(config.axes),
        before.channel if config.channel is None else str(config.channel),
        config.missing or before.missing,
    )


def _region(config: ConvertConfig, shape: Zyx, recorded: ConversionRecord | None) -> Box:
    if config.roi is not None:
        return parse_roi(config.roi, shape)
    return recorded.roi if recorded else Box.of_shape(shape)


def _cluster(config: ConvertConfig, output: OutputEntry) -> str:
    """The cluster if none is named."""
    is_small = prod(output.shape) * np.dtype(output.dtype).itemsize <= _SERIAL_BYTES
    return "serial" if is_small and config.workers is None else "local"
