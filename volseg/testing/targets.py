"""Finished targets of noise, made without a network: for tests of what reads maps and their journals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import Box, Zyx
from volseg.pipeline import EMPTY
from volseg.prediction.sink import VolumeSink
from volseg.storage import (
    FORMAT,
    NUMERICS,
    Census,
    Journal,
    Mark,
    MaskEntry,
    ModelEntry,
    RunRecord,
    Settings,
    SourceEntry,
    create_target,
    open_pyramid,
    table_digest,
    table_of,
    write_table,
)
from volseg.testing.doubles import FOOTPRINT
from volseg.testing.factories import VOXEL_NM

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from volseg.storage import Pyramid

_TABLE = table_of([(128.0, 60.0)])
_CENSUS = Census(Box((0, 0, 0), (1, 1, 8)), 8, 0, (), np.full(1, 255, np.uint8))


def noise_record(  # noqa: PLR0913 - properties of a run
    shape: Zyx = (3, 40, 70),
    block: Zyx = (2, 16, 32),
    *,
    shard: Zyx | None = None,
    chunk: Zyx | None = None,
    region: Box | None = None,
    classes: tuple[str, ...] = ("membrane",),
    uncertainty: bool = False,
    masked: int | None = None,
    levels: tuple[Zyx, ...] = (),
) -> RunRecord:
    """The record of a run that was never computed.

    Args:
        shape: of the volume.
        block: of the run.
        shard: of the target; the block by default.
        chunk: of the target; the shard by default.
        region: of the run; all by default.
        classes: of the map.
        uncertainty: whether there is a second volume.
        masked: number of blocks in the run's mask; None for no mask.
        levels: factors of the coarser levels.
    """
    entry = ModelEntry(
        location="/models/noise.safetensors", name="noise", digest="0" * 32, footprint=FOOTPRINT,
        normalization="volume", halo=(0, 1, 1), tile=block, batch=1, statistics=table_digest(_TABLE),
    )  # fmt: skip
    source = SourceEntry(
        location="/data/raw.zarr/0", shape=shape, dtype="uint8", voxel_nm=VOXEL_NM, translation_nm=(60.0, 0.0, 12.0),
        identity="0" * 32, chunk_census=_CENSUS.digest,
    )  # fmt: skip
    settings = Settings(
        block=block, shard=shard or block, chunk=chunk or shard or block, region=region or Box.of_shape(shape),
        device="cpu", precision="float32", threads=1, classes=classes, uncertainty=uncertainty,
        levels=levels,
    )  # fmt: skip
    mask = None if masked is None else MaskEntry(location="/data/mask.zarr/0", shape=shape, identity="0", blocks=masked)
    return RunRecord(
        format=FORMAT, numerics=NUMERICS, source=source, models=(entry,), settings=settings, version="0.1.0",
        torch="2", created="2026-01-01T00:00:00+00:00", mask=mask,
    )  # fmt: skip


def make_target(
    path: Path,
    record: RunRecord,
    *,
    seed: int = 0,
    empty: Collection[int] = (),
    unmarked: Collection[int] = (),
    segments: int = 1,
) -> Path:
    """Write a target as a run writes it, with noise for voxels.

    Args:
        path: of the target.
        record: of its run.
        seed: of the noise.
        empty: blocks that are marked as such.
        unmarked: blocks that are neither written nor marked; nor are those of coarser levels that are made of them.
        segments: of the journal, as of so many starts.
    """
    create_target(path, record, record.place)
    pyramid = open_pyramid(path, record)
    folder, finest = pyramid.finest[0].journal, record.grid.count
    numbers = [number for number in record.grid.numbers() if number not in unmarked]
    above = [n for n in range(finest, pyramid.grid.count) if n not in pyramid.grid.above(unmarked)]
    for part in range(segments):
        with Journal(folder, run=record.digest) as journal:
            for mark in _written(VolumeSink(pyramid.finest), record, numbers[part::segments], seed, empty):
                journal.mark(mark)
            for number in above if part == segments - 1 else ():
                journal.mark(_coarser(pyramid, number))
    write_table(folder, _TABLE)
    _CENSUS.write(folder)
    for volume in pyramid.targets:
        volume.remove_partials()
    return path


def _coarser(pyramid: Pyramid, number: int) -> Mark:
    """Make a block of a coarser level; returns its mark."""
    volumes, (targets, box) = pyramid.downsample(number), pyramid.targets_of(number)
    if not any(volume.any() for volume in volumes):
        return Mark(number, "", 1, "here, cpu", 0.1, EMPTY)
    digest, size, files = VolumeSink(targets).write(box, volumes)
    return Mark(number, digest, 1, "here, cpu", 0.1, "", size, files)


def _written(
    sink: VolumeSink, record: RunRecord, numbers: Iterable[int], seed: int, empty: Collection[int]
) -> Iterable[Mark]:
    for number in numbers:
        if number in empty:
            yield Mark(number, "", 1, "here, cpu", 0.1, EMPTY)
            continue
        box, random = record.grid.box(number), np.random.default_rng((seed, number))
        shape = (len(record.settings.classes), *box.shape)
        voxels = [random.integers(0, 256, shape, np.uint8) for _ in sink.targets]
        digest, size, files = sink.write(box, voxels)
        yield Mark(number, digest, 1, "here, cpu", 0.1, "", size, files)
