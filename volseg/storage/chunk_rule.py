"""Chunks that a source lacks: counted before the first block, and compared with that in each read.

A missing chunk reads as the array's fill value. It is data if it was missing at the start; if it went missing later, it
is a fault of the store, and the block that read it fails.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from volseg.errors import ResumeError, SourceError, TargetError
from volseg.ops import is_constant
from volseg.storage.census import Census, read_census, take_census
from volseg.storage.chunk_grid import Chunked
from volseg.storage.resampled import ResampledVolume, stored_volume
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx
    from volseg.storage.object_path import TargetPath
    from volseg.storage.readers import Readable
    from volseg.storage.record_entries import SourceEntry

MissingChunks: TypeAlias = Literal["fill", "refuse"] | None
"""What the user states of chunks that the source lacks; None to fill them, and to count them if it does not list."""


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

    @property
    def fields(self) -> dict[str, Any]:
        """What a record's entry of the source says of it."""
        census = self.census
        if census is None:
            return {"missing_chunks": self.missing}
        return {
            "chunks": prod(census.span.shape),
            "chunks_checked": census.checked,
            "chunks_absent": census.absent,
            "chunk_census": census.digest,
            "missing_chunks": self.missing,
        }

    def check(self, volume: Readable, absent: Iterable[Zyx]) -> None:
        """Refuse chunks that may not be missing.

        Raises:
            SourceError: names one of them.
        """
        volume = stored_volume(volume)
        for number in absent:
            was_there = self.census is not None and self.census.had(number)
            if was_there or self.missing == "refuse":
                key = volume.chunk_grid.key(number) if isinstance(volume, Chunked) else str(number)
                state = "was there at the start and is gone" if was_there else "is missing"
                raise SourceError(f"chunk {key} of {volume.location} {state}; restore it, then rerun with --resume")


@runtime_checkable
class Confirmed(Protocol):
    """A source that can tell whether it is still the one that was opened."""

    def confirm(self) -> None:
        """Refuse a source that is gone or has changed."""


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
        if isinstance(volume, ResampledVolume):
            stored = CheckedSource(volume.source, rule)
            self._volume, self.absent = replace(volume, source=stored), stored.absent

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
        if isinstance(self._volume, Confirmed):
            self._volume.confirm()


def census_to_take(volume: Readable, box: Box) -> Census | None:
    """Look which chunks of a box a source has; None for one that has no chunks of which some may be missing.

    Raises:
        SourceError: they cannot be listed.
    """
    return take_census(volume, box) if isinstance(volume, Chunked) else None


def recorded_census(volume: Readable, entry: SourceEntry, box: Box, folder: TargetPath) -> Census | None:
    """The census of a run to resume; taken again if its file is lost.

    Args:
        volume: the source.
        entry: the source as recorded.
        box: of the chunks that the run reads.
        folder: of the run's journal.

    Raises:
        ResumeError: it is lost, and the source lacks other chunks.
        SourceError: the chunks cannot be listed.
    """
    if not entry.chunk_census or not isinstance(volume, Chunked):
        return None
    try:
        return read_census(folder, entry.chunk_census)
    except TargetError as error:
        census = take_census(volume, box)
        if census.digest != entry.chunk_census:
            raise ResumeError(
                f"{error}: without it chunks that went missing cannot be told, and {volume.location} lacks others "
                f"than at the start ({entry.chunks_absent} then, {census.absent} found); start again with --overwrite"
            ) from error
        return census


def rule_of(volume: Readable, census: Census | None, missing: MissingChunks, note: Callable[[str], None]) -> ChunkRule:
    """The rule of a census.

    Args:
        volume: the source.
        census: of its chunks.
        missing: what the user states.
        note: receives a line that says how many chunks are missing.

    Raises:
        SourceError: chunks are missing and to be refused.
    """
    if census is not None and census.absent and isinstance(volume, Chunked):
        line = _line(census, volume)
        if missing == "refuse":
            raise SourceError(f"{line}; restore them, or accept them with --missing-chunks fill")
        note(f"{line}; --missing-chunks refuse would stop here")
    return ChunkRule(census, missing)


def _line(census: Census, volume: Chunked) -> str:
    sampled = "" if census.bits is not None else " that were looked for"
    such = f", such as {', '.join(census.examples)}" if census.examples else ""
    share = f"{census.absent} of {counted(census.checked, 'chunk')}{sampled} ({census.absent / census.checked:.2%})"
    fill = volume.chunk_grid.fill
    return f"{volume.location} lacks {share}{such}: they read as {fill}, the fill value"
