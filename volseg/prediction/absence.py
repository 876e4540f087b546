"""Chunks that the source lacks: counted before the first block, and compared with that in each read.

A missing chunk reads as the array's fill value. It is data if it was missing at the start; if it went missing later, it
is a fault of the store, and the block that read it fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from volseg.blocks import Box
from volseg.errors import ResumeError, SourceError, TargetError
from volseg.pipeline import is_constant
from volseg.storage import Census, Chunked, open_target, read_census, take_census
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from volseg.blocks import Zyx
    from volseg.cluster import Progress
    from volseg.prediction.prepare import RunSpec
    from volseg.prediction.source import MissingChunks
    from volseg.storage import Readable, RunRecord


@dataclass(frozen=True)
class ChunkRule:
    """Which chunks a source may lack.

    Attributes:
        census: taken before the first block; None if there is none.
        missing: what the user stated.
    """

    census: Census | None = None
    missing: MissingChunks = None

    @property
    def explains(self) -> bool:
        """Whether every chunk that this rule lets pass is known to be missing, or accepted."""
        return self.missing == "fill" or (self.census is not None and self.census.bits is not None)

    def check(self, volume: Readable, absent: Iterable[Zyx]) -> None:
        """Refuse chunks that may not be missing.

        Raises:
            SourceError: names one of them.
        """
        for number in absent:
            was_there = self.census is not None and self.census.had(number)
            if was_there or self.missing == "refuse":
                key = volume.chunk_grid.key(number) if isinstance(volume, Chunked) else str(number)
                state = "was there at the start and is gone" if was_there else "is missing"
                raise SourceError(f"chunk {key} of {volume.location} {state}; restore it, then rerun with --resume")


@runtime_checkable
class _Confirmed(Protocol):
    def confirm(self) -> None: ...


class CheckedSource:
    """A source for one block or slab, which refuses to take absence for data.

    Args:
        volume: the source.
        rule: which chunks it may lack.
    """

    def __init__(self, volume: Readable, rule: ChunkRule) -> None:
        self._volume, self._rule = volume, rule
        self.location, self.shape, self.dtype, self.chunk = volume.location, volume.shape, volume.dtype, volume.chunk
        self.voxel_nm, self.translation_nm = volume.voxel_nm, volume.translation_nm
        self.absent: set[Zyx] = set()
        """Numbers of the chunks that the source lacked in all reads."""

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box.

        Raises:
            SourceError: it cannot be read; a chunk is missing that must not be; all voxels are equal, and the source
                is gone or has changed.
        """
        if isinstance(self._volume, Chunked):
            voxels, absent = self._volume.read_checked(box)
            self._rule.check(self._volume, absent)
            self.absent.update(absent)
        else:
            voxels = self._volume.read(box)
        if is_constant(voxels):
            self.confirm()
        return voxels

    def confirm(self) -> None:
        """Refuse a source that is gone or has changed, if it can tell.

        Raises:
            SourceError: it is.
        """
        if isinstance(self._volume, _Confirmed):
            self._volume.confirm()


def chunk_rule(spec: RunSpec, recorded: RunRecord | None, progress: Progress) -> ChunkRule:
    """Count the chunks that the source lacks, before anything is read, and say how many.

    Args:
        spec: the run.
        recorded: the record of the run to resume, whose census counts; None for a new run.
        progress: receives a note.

    Raises:
        SourceError: chunks are missing and to be refused, or they cannot be listed.
        ResumeError: the census of the run to resume is lost, and the source lacks other chunks.
    """
    volume = spec.volume
    if not isinstance(volume, Chunked):
        return ChunkRule()
    census = _recorded_census(spec, recorded) if recorded else _take(spec, progress)
    if census is not None and census.absent:
        line = _line(census, volume)
        if spec.missing_chunks == "refuse":
            raise SourceError(f"{line}; restore them, or accept them with --missing-chunks fill")
        if recorded is None:
            progress.note(f"{line}; --missing-chunks refuse would stop here")
    return ChunkRule(census, spec.missing_chunks)


def _take(spec: RunSpec, progress: Progress) -> Census | None:
    if not isinstance(spec.volume, Chunked):
        return None
    progress.stage("looking for missing chunks")
    return take_census(spec.volume, _box_to_read(spec))


def _box_to_read(spec: RunSpec) -> Box:
    """The region with its halo, inside the volume."""
    return spec.plan.grid.region.grow(spec.plan.halo).intersection(Box.of_shape(spec.volume.shape))


def _recorded_census(spec: RunSpec, recorded: RunRecord) -> Census | None:
    """The census of a run to resume; taken again if its file is lost."""
    source = recorded.source
    if not source.chunk_census or not isinstance(spec.volume, Chunked):
        return None
    try:
        return read_census(open_target(spec.target).journal, source.chunk_census)
    except TargetError as error:
        census = take_census(spec.volume, _box_to_read(spec))
        if census.digest != source.chunk_census:
            raise ResumeError(
                f"{error}: without it chunks that went missing cannot be told, and {spec.volume.location} lacks others "
                f"than at the start ({source.chunks_absent} then, {census.absent} found); start again with --overwrite"
            ) from error
        return census


def _line(census: Census, volume: Chunked) -> str:
    sampled = "" if census.bits is not None else " that were looked for"
    such = f", such as {', '.join(census.examples)}" if census.examples else ""
    share = f"{census.absent} of {counted(census.checked, 'chunk')}{sampled} ({census.absent / census.checked:.2%})"
    fill = volume.chunk_grid.fill
    return f"{volume.location} lacks {share}{such}: they read as {fill}, the fill value"


def census_fields(rule: ChunkRule) -> dict[str, Any]:
    """What the run record says of the census."""
    census = rule.census
    if census is None:
        return {"missing_chunks": rule.missing}
    return {
        "chunks": prod(census.span.shape),
        "chunks_checked": census.checked,
        "chunks_absent": census.absent,
        "chunk_census": census.digest,
        "missing_chunks": rule.missing,
    }
