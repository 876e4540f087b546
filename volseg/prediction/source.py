"""The source of a run: what the user states of it, and what is assumed."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import Box
from volseg.errors import ConfigError, ResumeError
from volseg.ops import OutputResampling, Resampling
from volseg.storage import (
    Chunked,
    FolderStack,
    MapEntry,
    MissingChunks,
    ReadOptions,
    ResampledVolume,
    UnpackedStack,
    open_readable,
    parse_axes,
    place_of,
    refuse_overlap,
    resampling_of,
    stored_volume,
)

if TYPE_CHECKING:
    from volseg.blocks import Zyx, ZyxFloat
    from volseg.config import PredictConfig
    from volseg.models import ModelHeader
    from volseg.storage import Place, Readable, RunRecord, TargetPath

__all__ = ["MissingChunks", "RunSource", "missing_chunks", "open_run_source", "refuse_undecodable"]


@dataclass(frozen=True)
class RunSource:
    """The source of a run.

    Attributes:
        stored: the volume as it is stored.
        stored_place: its voxel size and translation.
        volume: as the networks see it; the stored one, or a resampled one.
        place: voxel size and translation of that.
        map: what the map is, if its voxels are not those of `volume`.
        options: what the user states of it.
        voxel_size_given: whether the user stated its voxel size.
        warnings: what is assumed of it, a line each.
    """

    stored: Readable
    stored_place: Place
    volume: Readable
    place: Place
    map: MapEntry | None
    options: ReadOptions
    voxel_size_given: bool
    warnings: tuple[str, ...]

    @property
    def output(self) -> OutputResampling | None:
        """From the networks' voxels to those of the map; None if they are the same."""
        return OutputResampling(self.map.resampling, self.volume.shape, self.map.shape) if self.map else None

    @property
    def map_volume(self) -> Readable:
        """The volume that has the map's voxels."""
        return self.stored if self.map else self.volume

    @property
    def map_place(self) -> Place:
        """Voxel size and translation of the map."""
        return self.stored_place if self.map else self.place


def open_run_source(
    config: PredictConfig, models: tuple[ModelHeader, ...], recorded: RunRecord | None, target: TargetPath
) -> RunSource:
    """Open the source, as the user states it, or stated when the run to resume was started.

    Raises:
        VolsegError: it cannot be read, or is not what is stated.
    """
    options = _read_options(config, recorded, target)
    stored = open_readable(config.source, options=options, level=config.scale_level)
    refuse_overlap("source", stored.location, target)
    given_nm = _given_voxel_size(config, recorded, target)
    place = place_of(stored) if given_nm is None else place_of(stored).with_voxel_nm(given_nm)
    volume = _at_model_size(config, stored, place, models, recorded)
    seen = place.resampled(volume.resampling.target_nm) if isinstance(volume, ResampledVolume) else place
    written = _map_entry(config, stored, place, volume, recorded)
    warnings = _source_warnings(stored, options, place)
    return RunSource(stored, place, volume, seen, written, options, given_nm is not None, warnings)


def _read_options(config: PredictConfig, recorded: RunRecord | None, target: TargetPath) -> ReadOptions:
    """What the user states of the source's axes, channel and missing sections, or stated when the run was started.

    Raises:
        ResumeError: it is other than recorded.
    """
    before = recorded.source.options if recorded else ReadOptions()
    options = ReadOptions(
        before.axes if config.axes is None else parse_axes(config.axes),
        before.channel if config.channel is None else str(config.channel),
        config.missing or before.missing,
    )
    if recorded is not None and options != before:
        raise ResumeError(
            f"{target} was started with {before}, not {options}; leave out --axes, --channel and --missing, or start "
            "again with --overwrite"
        )
    return options


def _given_voxel_size(config: PredictConfig, recorded: RunRecord | None, target: TargetPath) -> ZyxFloat | None:
    """The voxel size that the user states, or stated when the run to resume was started; None if there is none.

    Raises:
        ResumeError: it is other than recorded.
    """
    if recorded is None:
        return config.voxel_size
    resampling = recorded.source.resampling
    was = resampling.source_nm if resampling else recorded.source.voxel_nm
    if config.voxel_size in (None, was):
        return was if recorded.source.voxel_size_given else None
    raise ResumeError(
        f"{target} was started with a voxel size of {was}, not {config.voxel_size}; leave out --voxel-size, or start "
        "again with --overwrite"
    )


def missing_chunks(config: PredictConfig, volume: Readable, recorded: RunRecord | None) -> MissingChunks:
    """What the user states of missing chunks, or stated when the run was started.

    Raises:
        ConfigError: the source has no chunks of which some may be missing.
    """
    if config.missing_chunks is not None and not isinstance(stored_volume(volume), Chunked):
        raise ConfigError(f"--missing-chunks does not apply to {volume.location}, which has no chunks; leave it out")
    return config.missing_chunks or (recorded.source.missing_chunks if recorded else None)


def _at_model_size(
    config: PredictConfig,
    volume: Readable,
    place: Place,
    models: tuple[ModelHeader, ...],
    recorded: RunRecord | None,
) -> Readable:
    """The source as the models see it: resampled to their voxel size, if that is requested or was, where they look.

    Along an axis on which no model looks beyond a voxel, such as z for sections, the voxels keep their size.

    Raises:
        ConfigError: the source's voxel size is not known, the models' sizes differ, or a size makes no sense.
        ResumeError: the run to resume was started without it.
    """
    before = recorded.source.resampling if recorded else None
    if config.at_model_size is None:
        if before is None:
            return volume
        target_nm = before.target_nm
    else:
        target_nm = _models_size(volume, place, models)
    wanted = Resampling(place.scale, target_nm)
    wanted.check(volume.shape, "--at-model-size")
    resampling = None if wanted.is_identity else wanted
    if recorded is not None and resampling != before:
        raise ResumeError(
            f"{config.target} was started with {before or 'voxels as they are stored'}, not {resampling or 'these'}; "
            "leave out --at-model-size, or start again with --overwrite"
        )
    return volume if resampling is None else ResampledVolume(volume, resampling)


def _map_entry(
    config: PredictConfig, stored: Readable, place: Place, volume: Readable, recorded: RunRecord | None
) -> MapEntry | None:
    """The map of a resampled source whose voxels are to be those that are stored; None if it has those of `volume`.

    Args:
        config: the options.
        stored: the source.
        place: its voxel size and translation.
        volume: as the networks see it.
        recorded: of the run to resume.

    Raises:
        ResumeError: the run to resume writes the other ones.
    """
    before = recorded.settings.map if recorded else None
    asked = config.at_model_size
    if recorded is not None and asked is not None and (asked == "source") != (before is not None):
        raise ResumeError(
            f"{config.target} was started with the voxels of the {'source' if before else 'model'}, not of the "
            f"{asked}; leave out --at-model-size, or start again with --overwrite"
        )
    resampling = resampling_of(volume)
    if resampling is None or not (asked == "source" or before):
        return None
    back = Resampling(resampling.target_nm, resampling.source_nm)
    return MapEntry(shape=stored.shape, voxel_nm=place.scale, translation_nm=place.translation, resampling=back)


def _models_size(volume: Readable, place: Place, models: tuple[ModelHeader, ...]) -> ZyxFloat:
    if not place.is_nm:
        raise ConfigError(
            f"--at-model-size needs the voxel size of {volume.location}, which states none; give --voxel-size Z,Y,X "
            "in nanometres"
        )
    sizes = []
    for axis, size in enumerate(place.scale):
        looking = {
            model.card.voxel_nm[axis]
            for model in models
            if model.card.footprint.reach_before[axis] or model.card.footprint.reach_after[axis]
        }
        if len(looking) > 1:
            raise ConfigError(
                f"--at-model-size: the models were trained on voxels of {' and '.join(f'{s:g}' for s in looking)} nm "
                f"along {'zyx'[axis]}; give models of one size"
            )
        sizes.append(looking.pop() if looking else size)
    return sizes[0], sizes[1], sizes[2]


def _source_warnings(volume: Readable, options: ReadOptions, place: Place) -> tuple[str, ...]:
    """What is assumed of a source, in a line each.

    Args:
        volume: the source.
        options: what the user states of it.
        place: its voxel size and translation, as the map gets them.
    """
    warnings = [*_place_warnings(volume, place)]
    if note := getattr(volume, "note", ""):
        warnings.append(note)
    if isinstance(volume, UnpackedStack):
        size = prod(volume.shape) * np.dtype(volume.dtype).itemsize / 1e9
        warnings.append(
            f"{volume.location} holds images, which each host decodes into a temporary file of {size:.1f} GB before "
            "the first block; for several runs, convert it once with: volseg convert"
        )
        if isinstance(volume.stack, FolderStack) and volume.stack.lost:
            read = "zeros" if options.missing == "blank" else "the nearest section"
            warnings.append(f"{volume.location} lacks {volume.stack.lost}, for which {read} are read")
    return tuple(warnings)


def refuse_undecodable(volume: Readable, first: Zyx) -> None:
    """Read one voxel, which refuses what opens but cannot be decoded; a stack of images is not decoded for it.

    Raises:
        SourceError: it cannot be read.
    """
    if isinstance(volume, ResampledVolume):
        z, y, x = first
        first = volume.source_box(Box(first, (z + 1, y + 1, x + 1))).start
        volume = volume.source
    z, y, x = first
    if isinstance(volume, UnpackedStack):
        volume.stack.read(z, z + 1)
    elif not getattr(volume, "is_decoded_whole", False):
        volume.read(Box((z, y, x), (z + 1, y + 1, x + 1)))


def _place_warnings(volume: Readable, place: Place) -> tuple[str, ...]:
    problem = place_of(volume).problem
    if place.is_nm:
        given = f"so it is taken to have {place}, as --voxel-size says; its translation is kept in voxels"
        return (f"{volume.location}: {problem}, {given}",) if problem else ()
    reason = f" ({problem})" if problem else ""
    return (
        f"{volume.location} states no voxel size{reason}, so the map states none, and whether the model suits it is "
        "not checked; give --voxel-size Z,Y,X in nanometres",
    )
