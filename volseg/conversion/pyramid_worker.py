"""The worker's side of added levels: open level 0 and the levels once, then make any block by number.

A block of level 0 is read, and its coarser half written; a block of a coarser level is made as in a conversion.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import coarser_box
from volseg.conversion.worker import make_coarser
from volseg.errors import TargetError
from volseg.malloc import release_heap, retain_heap
from volseg.pipeline import EMPTY, BlockReport
from volseg.storage import CheckedSource, ChunkRule, MissingChunks, Target, open_target, read_census, voxel_digest
from volseg.storage.pyramid import CoarserPyramid
from volseg.storage.pyramid_record import PyramidRecord, journal_of, read_pyramid, refuse_other_pyramid

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volseg.blocks import Box
    from volseg.conversion.source import SourceRef
    from volseg.storage import Readable, Written
    from volseg.storage.object_path import TargetPath

_CACHED = 2
_open: dict[PyramidRef, OpenPyramid] = {}
_opening = threading.Lock()


@dataclass(frozen=True, slots=True)
class PyramidRef:
    """Reference to levels that are made, in a few bytes.

    Attributes:
        group: path of the image.
        name: of the first new level; the record lies in it.
        digest: of that record.
        sources: level 0, as the driver opened it.
        missing_chunks: what the user states of chunks that it lacks.
    """

    group: str
    name: str
    digest: str
    sources: tuple[SourceRef, ...]
    missing_chunks: MissingChunks = None

    def check(self) -> None:
        """Refuse to write into levels that are another run's.

        Raises:
            TargetLostError: they are.
        """
        refuse_other_pyramid(Path(self.group), self.name, self.digest)


class LevelsWriter:
    """Writes the coarser half of boxes of level 0, which are given in voxels of level 0.

    Attributes:
        pyramid: the new levels.
    """

    def __init__(self, group: Path, record: PyramidRecord) -> None:
        opened = [replace(open_target(group, name), is_labels=record.is_labels) for name in record.names]
        self.pyramid = CoarserPyramid(record.pyramid, tuple((target,) for target in opened))
        self.factor = record.levels[0]

    @property
    def first(self) -> Target:
        """The first new level."""
        return self.pyramid.finest[0]

    def write(self, box: Box, voxels: NDArray[np.generic], check: Callable[[], object]) -> Written:
        """Write the coarser half of a box, which `voxels` are."""
        return self.first.write(coarser_box(box, self.factor), voxels, check)

    def read(self, box: Box) -> NDArray[np.generic]:
        """Read it back."""
        return self.first.read(coarser_box(box, self.factor))

    def stored(self, box: Box) -> int:
        """Bytes that it takes; 0 if some of its shards are missing."""
        return self.pyramid.stored(self.pyramid.grid.base.number(box.start))

    def folders(self, box: Box) -> set[TargetPath]:
        """Folders of its shards."""
        return self.first.shard_folders(coarser_box(box, self.factor))

    def close(self) -> None:
        """Delete shards that were not renamed."""
        for target in self.pyramid.targets:
            target.remove_partials()


@dataclass(frozen=True)
class OpenPyramid:
    """All that a worker needs to make any block."""

    record: PyramidRecord
    volumes: tuple[Readable, ...]
    rules: tuple[ChunkRule, ...]
    writer: LevelsWriter


def make_block(number: int, reference: PyramidRef) -> BlockReport:
    """Make one block, and read back what was written; repeating it gives the same bytes.

    Raises:
        SourceError: a read failed, or chunks are missing that must not be.
        TargetError: a write failed, or other voxels are read back.
    """
    started = time.perf_counter()
    opened = pyramid_of_reference(reference)
    writer, base = opened.writer, opened.writer.pyramid.grid.base
    if number >= base.count:
        return make_coarser(number, writer.pyramid, reference.check)
    box = base.box(number)
    sources = [CheckedSource(volume, rule) for volume, rule in zip(opened.volumes, opened.rules, strict=True)]
    halves = np.stack([writer.first.downsample(source.read(box), writer.factor) for source in sources])
    absent = sum(len(source.absent) for source in sources)
    if not halves.any():
        writer.first.clear(coarser_box(box, writer.factor), reference.check)
        seconds = time.perf_counter() - started
        return BlockReport(number, box.voxels, "", seconds, 0.0, skipped=EMPTY, absent=absent)
    half = halves.reshape(*writer.first.leading, *halves.shape[1:])
    written = writer.write(box, half, reference.check)
    if voxel_digest(writer.read(box)) != written.digest:
        raise TargetError(f"{box} of {reference.group} reads back other than it was written; check the disk")
    return BlockReport(
        number,
        box.voxels,
        written.digest,
        time.perf_counter() - started,
        0.0,
        bytes=written.bytes,
        file_digest=written.file_digest,
        absent=absent,
    )


def pyramid_of_reference(reference: PyramidRef) -> OpenPyramid:
    """Level 0 and the new levels, opened at the first block and cached.

    Raises:
        TargetLostError: the levels are gone, or others.
        SourceError: level 0 cannot be opened.
    """
    with _opening:
        if reference not in _open:
            while len(_open) >= _CACHED:
                _open.pop(next(iter(_open)))
            retain_heap()  # else each block's memory is returned to the system, which clears it again
            _open[reference] = _opened(reference)
        return _open[reference]


def forget(reference: PyramidRef) -> None:
    """Close what a serial run has opened in this process, which is the user's, and restore malloc."""
    with _opening:
        if _open.pop(reference, None) is not None:
            release_heap()


def _opened(reference: PyramidRef) -> OpenPyramid:
    group = Path(reference.group)
    reference.check()
    record = read_pyramid(group / reference.name / ".volseg").record
    assert record is not None
    folder = journal_of(group, record)
    rules = tuple(
        ChunkRule(read_census(folder, entry.chunk_census) if entry.chunk_census else None, reference.missing_chunks)
        for entry in record.sources
    )
    volumes = tuple(source.open() for source in reference.sources)
    return OpenPyramid(record, volumes, rules, LevelsWriter(group, record))
