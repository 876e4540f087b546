"""Coarser levels of an image, checked and planned before anything is started or written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import Box, level_factors, to_zyx, zip3
from volseg.cluster import check_cluster
from volseg.conversion.plan import block_shape
from volseg.conversion.source import SourceRef, open_source
from volseg.errors import ConfigError, ResumeError, SourceError, TargetError
from volseg.storage import (
    UNMARKED,
    Place,
    ReadOptions,
    SourceEntry,
    Volume,
    census_to_take,
    in_use,
    is_running,
    is_target,
    journal_folder,
    local_output,
    read_mark_table,
    read_record,
    recorded_census,
    rule_of,
    source_marks,
    volume_fingerprint,
)
from volseg.storage.level_group import LevelGroup, open_level_group
from volseg.storage.object_client import is_object_url
from volseg.storage.pyramid_record import PyramidRecord, Recorded, recorded_pyramids
from volseg.storage.writers.base import LABEL_TYPES
from volseg.storage.zarr_metadata import read_metadata
from volseg.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.blocks import Zyx
    from volseg.config import Cluster, PyramidConfig
    from volseg.storage import ChunkRule

_SERIAL_BLOCKS = 4
"""So few blocks are made before local workers have started."""
_MAX_CHUNK, _CHUNK = 1024, 512
"""Chunks of others that are longer along an axis are replaced by such: viewers fetch whole chunks."""


@dataclass(frozen=True)
class PyramidSpec:
    """Coarser levels that were checked; nothing of them is started or written.

    Attributes:
        group: the image.
        volumes: its level 0, one for each position along the axis before z.
        rules: which chunks each may lack.
        place: voxel size and translation of level 0.
        record: of the new levels; None if there is nothing to add.
        recorded: what volseg has added before, or begun to.
        resumed: the one of these that is resumed.
        replaced: paths of the levels that are deleted at the end.
        config: the options.
        notes: what is assumed, a line each.
    """

    group: LevelGroup
    volumes: tuple[Volume, ...]
    rules: tuple[ChunkRule, ...]
    place: Place
    record: PyramidRecord | None
    recorded: tuple[Recorded, ...]
    resumed: Recorded | None
    replaced: tuple[str, ...]
    config: PyramidConfig
    notes: tuple[str, ...]

    @property
    def sources(self) -> tuple[SourceRef, ...]:
        """Level 0, for workers to open."""
        return tuple(
            SourceRef(volume.location, ReadOptions(channel=volume.channel), volume.shape, volume.dtype)
            for volume in self.volumes
        )

    @property
    def cluster(self) -> Cluster:
        """As for `connect`."""
        few = self.record is None or self.record.pyramid.base.count <= _SERIAL_BLOCKS
        return ("serial" if few else "local") if self.config.cluster is None else self.config.cluster


def prepare_pyramid(config: PyramidConfig) -> PyramidSpec:
    """Open the image, plan its levels and refuse what cannot work.

    Raises:
        VolsegError: the first thing that does not fit.
    """
    _refuse_options(config)
    if is_object_url(config.target):
        raise TargetError(
            f"no levels are added to {config.target}, which lies in an object store; volseg convert copies it with new "
            "levels, and volseg predict writes maps with theirs"
        )
    group = open_level_group(local_output(config.target))
    recorded = recorded_pyramids(group)
    _refuse_in_use(group, recorded)
    resumed = _resumed(config, group, recorded)
    _refuse_run(group.path)
    metadata = read_metadata(str(group.path / group.finest))
    volumes = _volumes(metadata.location, metadata.channels if metadata.channel_axis is not None else ())
    layout = volumes[0].layout
    if layout.axes != tuple(range(len(layout.shape) - 3, len(layout.shape))):
        raise SourceError(
            f"{volumes[0].location} has axes {', '.join(layout.names)}; levels are added to volumes whose last axes "
            "are z, y, x: copy it first, with volseg convert"
        )
    before = resumed.record if resumed else None
    notes: list[str] = []
    rules = tuple(_rule(config, volume, before, at, resumed, notes) for at, volume in enumerate(volumes))
    record = _record(config, group, volumes, rules, metadata.place, before)
    if before is not None and record is not None:
        refuse_other_levels(before, record, group.path)
    replaced = resumed.replaced if resumed else group.paths[1:]
    if record is not None and group.is_label and record.dtype not in LABEL_TYPES:
        notes.append(f"{group.path} says that it holds labels: its levels take the most frequent voxel")
    return PyramidSpec(
        group, volumes, rules, metadata.place, record, tuple(recorded), resumed, replaced, config, tuple(notes)
    )


def _refuse_options(config: PyramidConfig) -> None:
    if config.cluster is not None:
        check_cluster(config.cluster, config.workers)
    if config.resume and config.overwrite:
        raise ConfigError("--resume and --overwrite contradict each other; give one of them")
    if config.check and not config.resume:
        raise ConfigError("--check reads levels that are there; give it with --resume")


def _refuse_in_use(group: LevelGroup, recorded: list[Recorded]) -> None:
    """Refuse an image into which another process is writing, or which cannot be written."""
    if any(is_running(folder) for folder in (journal_folder(group.path), *(one.folder for one in recorded))):
        raise TargetError(in_use(group.path))
    if not os.access(group.path, os.W_OK) or not os.access(group.metadata_file, os.W_OK):
        raise TargetError(f"{group.path} is read-only; copy it first, with volseg convert")


def _resumed(config: PyramidConfig, group: LevelGroup, recorded: list[Recorded]) -> Recorded | None:
    """The levels to finish or to check; None to begin.

    Raises:
        TargetError: there are levels that may not be replaced.
    """
    listed = [one for one in recorded if one.record is not None and group.lists(one.record.names)]
    known = {*group.paths, *(path for one in listed for path in one.replaced)}  # the latter are not deleted yet
    begun = [one for one in recorded if one.record is not None and not known.intersection(one.record.names)]
    if config.overwrite:
        return None
    if config.resume and (begun or listed):
        return (begun or listed)[0]
    if begun:
        raise TargetError(
            f"unfinished levels of {group.path} lie in {begun[0].folder.parent}; give --resume to finish them, or "
            "--overwrite to start again"
        )
    if len(group.paths) > 1:
        others = ", ".join(group.paths[1:])
        way = "--resume to look for lost files, or --overwrite" if listed else "--overwrite"
        raise TargetError(f"{group.path} has coarser levels already ({others}); give {way} to replace them")
    return None


def _refuse_run(path: Path) -> None:
    """Refuse the target of a prediction that is not complete, or whose levels are its own."""
    target = path if is_target(path) else path.parent
    if not is_target(target):
        return
    run = read_record(target)
    if run.settings.levels:
        raise TargetError(
            f"the levels of {path} are those of its run; `volseg verify {target} --repair` makes lost ones again, and "
            "`volseg predict --levels` sets their number"
        )
    marks = read_mark_table(journal_folder(target), run.pyramid)
    done = len(marks.entries) - marks.count(UNMARKED)
    if done < run.planned:
        raise TargetError(
            f"the map {target} is not complete: {done} of {run.planned} blocks are done; finish it first, with its own "
            "`volseg predict` and --resume"
        )


def _volumes(location: str, channels: tuple[str, ...]) -> tuple[Volume, ...]:
    """Level 0, for each position along the axis before z."""
    numbers = range(len(channels)) if channels else [None]
    opened = [open_source(location, ReadOptions(channel=number)) for number in numbers]
    volumes = tuple(volume for volume in opened if isinstance(volume, Volume))
    if len(volumes) != len(opened):
        raise SourceError(f"{location} is not read by volseg's own reader of Zarr; uninstall the plug-in that reads it")
    return volumes


def _rule(
    config: PyramidConfig, volume: Volume, before: PyramidRecord | None, at: int, resumed: Recorded | None,
    notes: list[str],
) -> ChunkRule:  # fmt: skip
    """Count the chunks that level 0 lacks, before anything is read."""
    box = Box.of_shape(volume.shape)
    if before is not None and resumed is not None and at < len(before.sources):
        census = recorded_census(volume, before.sources[at], box, resumed.folder)
        return rule_of(volume, census, config.missing_chunks, lambda line: None)
    return rule_of(volume, census_to_take(volume, box), config.missing_chunks, notes.append)


def _record(
    config: PyramidConfig,
    group: LevelGroup,
    volumes: tuple[Volume, ...],
    rules: tuple[ChunkRule, ...],
    place: Place,
    before: PyramidRecord | None,
) -> PyramidRecord | None:
    """The levels to make, under the options that are not given those of a record; None if there are none."""
    shape, dtype = volumes[0].shape, volumes[0].dtype
    number = config.levels if config.levels is not None or before is None else len(before.levels)
    factors = level_factors(shape, (2, 2, 2), place.scale, number)
    if not factors:
        return None
    chunk, shard = _layout(group, volumes[0], factors[0])
    item = np.dtype(dtype).itemsize * len(volumes)
    entries = [
        SourceEntry(
            location=volume.location,
            shape=shape,
            dtype=dtype,
            voxel_nm=place.voxel_nm,
            identity=volume_fingerprint(volume),
            options=ReadOptions(channel=volume.channel),
            marks=source_marks(volume.location),
            **rule.fields,
        )
        for volume, rule in zip(volumes, rules, strict=True)
    ]
    return PyramidRecord(
        sources=tuple(entries),
        names=before.names if before and len(before.names) == len(factors) else group.free_names(len(factors)),
        dtype=dtype,
        sharded=group.is_sharded,
        shard=shard,
        chunk=chunk,
        block=before.block if before else block_shape(shard, shape, volumes[0].chunk, item),
        levels=factors,
        is_labels=config.labels or group.is_label or dtype in LABEL_TYPES or (before is not None and before.is_labels),
        version=__version__,
    )


def _layout(group: LevelGroup, volume: Volume, factor: Zyx) -> tuple[Zyx, Zyx]:
    """The chunk of the levels, and the voxels of level 0 that a shard of the first one is made of."""
    chunk = to_zyx(c if c <= _MAX_CHUNK else _CHUNK for c in (min(c, n) for c, n in zip3(volume.chunk, volume.shape)))
    if not group.is_sharded:
        return chunk, to_zyx(c * f for c, f in zip3(chunk, factor))
    stored = volume.layout.zyx(volume.chunk_grid.chunk)
    shard = to_zyx(max(s // c, 1) * c for s, c in zip3(stored, chunk))
    return chunk, to_zyx(s if s % f == 0 else s * f for s, f in zip3(shard, factor))


def refuse_other_levels(recorded: PyramidRecord, requested: PyramidRecord, path: Path) -> None:
    """Refuse to resume levels under other options, or of a level 0 that has changed; a moved image is the same.

    Raises:
        ResumeError: names the first difference.
    """
    for was, now in zip(recorded.sources, requested.sources, strict=False):
        is_same_place = was.location == now.location
        if (was.identity, was.marks if is_same_place else None) != (now.identity, now.marks if is_same_place else None):
            raise ResumeError(
                f"{now.location} has changed since levels were made of it; give --overwrite to make them anew"
            )
    for name in ("format", "numerics", "levels", "is_labels", "dtype", "sharded", "shard", "chunk", "block", "names"):
        before, now = getattr(recorded, name), getattr(requested, name)
        if before != now:
            raise ResumeError(
                f"the levels of {path} were begun with other {name} ({before} recorded, {now} requested); repeat their "
                "own command with --resume, or start again with --overwrite"
            )
