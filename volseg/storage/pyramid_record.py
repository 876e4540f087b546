"""The record of coarser levels that are added to an image, in the folder of the first of them.

LEVEL/.volseg/
    lock                    locked while a driver writes
    pyramid.json            the record; written before any array is created
    journal-0001.marks      marks of the blocks that are done; failures and the census of chunks lie beside it
"""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from volseg.blocks import BlockGrid, Box, PyramidGrid, Zyx, pyramid_levels
from volseg.errors import TargetError, TargetLostError
from volseg.storage.checked_record import CheckedRecord, reason_of
from volseg.storage.durable import sync_folder, write_synced
from volseg.storage.journal import read_marks
from volseg.storage.level_group import create_levels, open_level_group
from volseg.storage.level_list import remove_level
from volseg.storage.lock import in_use, is_locked, lock_file, locked
from volseg.storage.metadata_file import read_metadata
from volseg.storage.record_entries import SourceEntry
from volseg.text import parse_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from volseg.storage.level_group import LevelGroup

PYRAMID_FORMAT = 1
"""Of the record's fields."""
PYRAMID_NUMERICS = 1
"""Of the bytes that are written under one record; raised with any change of them."""
_FOLDER, _FILE = ".volseg", "pyramid.json"


class PyramidRecord(CheckedRecord):
    """Everything that the bytes of the levels depend on."""

    format: int = PYRAMID_FORMAT
    numerics: int = PYRAMID_NUMERICS
    sources: tuple[SourceEntry, ...]
    """Level 0; one for each position along the axis before z."""
    names: tuple[str, ...]
    """Paths of the new levels in the group, finest first."""
    dtype: str
    sharded: bool
    shard: Zyx
    """Voxels of level 0 that a shard of the first new level is made of; the shards of the others have this size."""
    chunk: Zyx
    block: Zyx
    """Voxels of level 0 that one task reads."""
    levels: tuple[Zyx, ...]
    """Factors of the levels, each to the next finer one."""
    is_labels: bool
    version: str
    """Of volseg."""

    @property
    def pyramid(self) -> PyramidGrid:
        """The blocks of all levels; those of level 0 write the first new one."""
        shape = self.sources[0].shape
        grid = BlockGrid(shape, self.block, Box.of_shape(shape))
        return PyramidGrid(grid, pyramid_levels(shape, self.shard, self.chunk, self.levels))

    @property
    def method(self) -> str:
        """How voxels are downsampled."""
        return "mode" if self.is_labels else "mean"


@dataclass(frozen=True)
class Recorded:
    """Levels that volseg has added, or begun to.

    Attributes:
        folder: of their journal.
        record: None if nothing of them is there but that folder.
        replaced: paths of the levels that they replace, until these are deleted.
    """

    folder: Path
    record: PyramidRecord | None
    replaced: tuple[str, ...] = ()


def recorded_pyramids(group: LevelGroup) -> list[Recorded]:
    """What volseg has added to an image, or begun to.

    Raises:
        TargetError: a record cannot be read.
    """
    return [read_pyramid(file.parent) for file in sorted(group.path.glob(f"{group.style()}/{_FOLDER}/lock"))
            if file.parent.parent != group.path / group.finest]  # fmt: skip


def read_pyramid(folder: Path) -> Recorded:
    """The record in a folder.

    Raises:
        TargetError: it cannot be read.
    """
    try:
        document = parse_object(read_metadata(folder / _FILE))
        return Recorded(folder, PyramidRecord.from_attributes(document["record"]), tuple(document["replaced"]))
    except (FileNotFoundError, NotADirectoryError):
        return Recorded(folder, None)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise TargetError(
            f"the record of the levels in {folder} cannot be read ({reason_of(error)}); delete {folder.parent}, "
            "then start again"
        ) from error


def journal_of(group: Path, record: PyramidRecord) -> Path:
    """Folder of the journal."""
    return group / record.names[0] / _FOLDER


def write_pyramid(folder: Path, record: PyramidRecord, replaced: Sequence[str]) -> None:
    """Write a record, whole and synced."""
    partial = folder / f"{_FILE}.partial"
    partial.unlink(missing_ok=True)
    content = json.dumps({"record": record.to_attributes(), "replaced": list(replaced)}, indent=2)
    write_synced(partial, content.encode())
    partial.replace(folder / _FILE)
    sync_folder(folder)


def refuse_other_pyramid(group: Path, name: str, digest: str) -> None:
    """Refuse to write levels that are gone, or of another record.

    Args:
        group: path of the image.
        name: of the first new level.
        digest: of the record.

    Raises:
        TargetLostError: they are.
    """
    with suppress(TargetError):
        record = read_pyramid(group / name / _FOLDER).record
        if record is not None and record.digest == digest:
            return
    raise TargetLostError(f"the new levels of {group} were deleted or replaced by others; this run ends")


@contextmanager
def held_levels(
    group: LevelGroup, record: PyramidRecord, seen: Sequence[Recorded], replaced: Sequence[str], *, resumes: bool
) -> Iterator[Path]:
    """Hold the new levels of an image, which are created if they are not there.

    New ones are deleted at the end if not a block of them is done.

    Args:
        group: the image.
        record: of the levels.
        seen: what was recorded when the record was made.
        replaced: paths of the levels that they replace.
        resumes: whether the record is one of these; else unfinished ones are deleted.

    Raises:
        TargetError: another run holds or has begun levels of the image, or they cannot be written.
    """
    folder = journal_of(group.path, record)
    with ExitStack() as stack:
        try:
            with locked(group.metadata_file, in_use(group.path)):
                found = recorded_pyramids(group)
                if any(is_locked(one.folder / "lock") for one in found) or found != list(seen):
                    raise TargetError(in_use(group.path))
                if not resumes:
                    for one in found:
                        remove_unlisted(group, one)
                    folder.mkdir(parents=True)
                stack.enter_context(lock_file(folder / "lock", in_use(group.path)))
            if not resumes:
                write_pyramid(folder, record, replaced)
            create_levels(group, record.names, record.pyramid.levels, record.dtype, sharded=record.sharded)
        except OSError as error:
            raise TargetError(f"cannot write levels of {group.path}: {error.strerror or error}") from error
        try:
            yield folder
        finally:
            is_kept = resumes or any(True for _ in read_marks(folder))
            if not is_kept and not open_level_group(group.path).lists(record.names):
                remove_unlisted(group, Recorded(folder, record))


def remove_unlisted(group: LevelGroup, found: Recorded) -> None:
    """Delete what was begun and is not listed."""
    listed = set(open_level_group(group.path).paths)
    names = found.record.names if found.record else (str(found.folder.parent.relative_to(group.path)),)
    for name in reversed(names):  # the record goes last
        if name not in listed:
            remove_level(group, name)
