"""Journal of completed blocks: append-only segments with one mark per block, written only by the driver.

    0/.volseg/journal-0001.marks      one segment per start of the run
    0/.volseg/journal-0002.marks
    0/.volseg/lock                    locked while a driver writes
    0/.volseg/lock-part-2-of-8        locked while the driver of a part writes

A mark is written when the shards of its block are on the disk: their files are synced by the worker that wrote them,
their folders and then the segment by the driver, for all marks of a quarter of a second together. A record that
was interrupted by the end of a driver is ignored, and its block computed again, as that of a damaged one.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, overload

from volseg.errors import TargetError
from volseg.storage.durable import sync_folder
from volseg.storage.file_segment import FileSegment
from volseg.storage.lease import hold_lease
from volseg.storage.lock import in_use, is_at, lock_file
from volseg.storage.mark_records import RECORD_BYTES
from volseg.storage.marks import (
    JOURNAL_FORMAT,
    MarkDecoder,
    SegmentStart,
    run_of_header,
)
from volseg.storage.object_journal import ObjectSegments, object_run, object_segments
from volseg.storage.object_path import ObjectPath, TargetPath
from volseg.storage.part_lock import parts_running
from volseg.system import held_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from volseg.storage.marks import Mark, MarkBatch

_READ_RECORDS = 1 << 16


@overload
def journal_folder(target: Path) -> Path: ...
@overload
def journal_folder(target: ObjectPath) -> ObjectPath: ...
@overload
def journal_folder(target: TargetPath) -> TargetPath: ...
def journal_folder(target: TargetPath) -> TargetPath:
    """Folder of a target's journal: inside the array's folder, where readers of the group do not list it."""
    return target / "0" / ".volseg"


@contextmanager
def lock_journal(folder: TargetPath) -> Iterator[None]:
    """Hold the lock of a journal: no other run writes into its target or replaces it.

    Args:
        folder: of the journal, made if the array around it is there.

    Raises:
        TargetError: another run holds the lock, the target was replaced meanwhile, or the folder cannot be written.
    """
    if isinstance(folder, ObjectPath):
        with hold_lease(folder):
            yield
        return
    path, target = folder / "lock", folder.parent.parent
    try:
        folder.mkdir(exist_ok=True)  # no parents: a target that is deleted meanwhile is not made again
        file = lock_file(path, in_use(target))
    except TargetError:
        raise
    except OSError as error:
        raise TargetError(f"cannot write the journal in {folder}: {error.strerror}") from error
    with file:
        if not is_at(path, file):  # the target was exchanged between the opening of the file and its lock
            raise TargetError(f"{target} was replaced by another run before this one began; rerun it elsewhere")
        if parts := parts_running(folder):
            number, count = parts[0]
            raise TargetError(f"part {number}/{count} of {target} is being computed; wait for it to end, or stop it")
        yield


class Journal:
    """The only writer of a target's marks."""

    def __init__(
        self, folder: TargetPath, *, run: str = "", is_locked: bool = False, known: Iterable[TargetPath] = ()
    ) -> None:
        """Start a new segment.

        Args:
            folder: of the journal.
            run: digest of the run's record.
            is_locked: the caller holds `lock_journal`; else it is held until the journal is closed.
            known: folders that are on the disk, beside the two above the journal.

        Raises:
            TargetError: another driver holds the lock, or the folder cannot be written.
        """
        self._stack = ExitStack()
        if not is_locked:
            self._stack.enter_context(lock_journal(folder))
        self._pending: list[tuple[Mark, tuple[TargetPath, ...]]] = []
        self._closing = False
        self._error: OSError | None = None
        # Folders that were there before the first block.
        self._known: set[TargetPath] = {folder.parent, folder.parent.parent, *known}
        self._segment: ObjectSegments | FileSegment
        try:
            self._segment = ObjectSegments(folder, run) if isinstance(folder, ObjectPath) else FileSegment(folder, run)
        except TargetError:
            raise
        except OSError as error:
            raise TargetError(f"cannot write the journal in {folder}: {error.strerror}") from error
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write_groups, name="volseg-journal", daemon=True)
        self._thread.start()

    def mark(self, mark: Mark, folders: Iterable[TargetPath] = ()) -> None:
        """Take a mark, to be written within a quarter of a second.

        Args:
            mark: of a block whose shards are written and synced.
            folders: of these shards.

        Raises:
            TargetError: an earlier mark could not be written.
        """
        with self._changed:
            self._refuse_after_error()
            self._pending.append((mark, tuple(folders)))
            if len(self._pending) >= self._segment.group:
                self._changed.notify()

    def close(self) -> None:
        """Write the last marks and release the lock, if it is this journal's.

        Raises:
            TargetError: a mark could not be written.
        """
        with held_signals():
            with self._changed:
                self._closing = True
                self._changed.notify()
            self._thread.join()
            with suppress(OSError):  # it holds what could not be written
                self._segment.close()
            self._stack.close()
        self._refuse_after_error()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except TargetError:
            if error is None:
                raise

    def _write_groups(self) -> None:
        """Write marks in groups, in a thread of its own, so that blocks are sent while the disk works."""
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closing or len(self._pending) >= self._segment.group, self._segment.seconds
                )
                group, self._pending = self._pending, []
                closing = self._closing
            try:
                if group:
                    self._write(group)
            except OSError as error:
                self._error = error
                return
            if closing:
                return

    def _write(self, group: list[tuple[Mark, tuple[TargetPath, ...]]]) -> None:
        """Sync the folders of shards, then write and sync their marks."""
        changed: dict[Path, None] = {}
        for folder in dict.fromkeys(folder for _, folders in group for folder in folders):
            if isinstance(folder, Path):
                changed[folder] = None
                changed.update(dict.fromkeys(self._new_parents(folder)))
        for synced in changed:
            sync_folder(synced)
        self._segment.append(mark for mark, _ in group)

    def _new_parents(self, folder: Path) -> Iterator[Path]:
        """Folders whose entry for a folder of shards, or for one above it, may not be on the disk yet."""
        for child in (folder, *folder.parents):
            if child in self._known:
                return
            self._known.add(child)
            yield child.parent

    def _refuse_after_error(self) -> None:
        if isinstance(self._error, TargetError):
            raise self._error
        if self._error is not None:
            raise TargetError(
                f"cannot write the journal {self._segment.name}: {self._error.strerror}; "
                "free some space, then rerun with --resume"
            ) from self._error


def _segments(folder: TargetPath) -> list[Path] | list[ObjectPath]:
    return object_segments(folder) if isinstance(folder, ObjectPath) else sorted(folder.glob("journal-*.marks"))


def read_marks(
    folder: TargetPath, on_damage: Callable[[TargetPath, int], None] = lambda segment, records: None
) -> Iterator[Mark]:
    """Yield the marks of a target, oldest first.

    Args:
        folder: of the journal.
        on_damage: called after a segment with the number of its records that are damaged, if there are any.

    Raises:
        TargetError: another version of volseg wrote the journal.
    """
    for batch in read_mark_batches(folder, on_damage):
        yield from batch


def read_mark_batches(
    folder: TargetPath,
    on_damage: Callable[[TargetPath, int], None] = lambda segment, records: None,
    starts: Mapping[str, SegmentStart] | None = None,
    ends: dict[str, SegmentStart] | None = None,
) -> Iterator[MarkBatch]:
    """As `read_marks`, some 10^4 marks at a time, as arrays.

    Args:
        folder: of the journal.
        on_damage: as of `read_marks`.
        starts: where to begin in segments, by their names; by default at their beginnings.
        ends: receives where each segment ended.
    """
    for old in folder.glob("journal-*.jsonl"):
        _refuse_format("1 or 2", old)
    for segment in _segments(folder):
        start = (starts or {}).get(segment.name, SegmentStart(0))
        decoder, size = MarkDecoder(start.names), start.bytes
        with segment.open("rb") as file:
            file.seek(start.bytes)
            while content := file.read(_READ_RECORDS * RECORD_BYTES):
                batches = list(decoder.decode_batches(content))
                size += len(content) // RECORD_BYTES * RECORD_BYTES
                if decoder.format not in (0, JOURNAL_FORMAT):
                    _refuse_format(decoder.format, segment)
                yield from batches
        if ends is not None:
            ends[segment.name] = SegmentStart(size, dict(decoder.names))
        if decoder.damaged:
            on_damage(segment, decoder.damaged)


def journal_runs(folder: TargetPath) -> set[str]:
    """Digests of the records of the runs that wrote a journal: one, unless the record beside it is another's."""
    if isinstance(folder, ObjectPath):
        return object_run(folder)
    runs = set()
    for segment in _segments(folder):
        with segment.open("rb") as file:
            runs.add(run_of_header(file.read(RECORD_BYTES)))
    return runs - {""}


def journal_changed(folder: TargetPath) -> float | None:
    """When a mark was last written, in seconds since 1970; None if there is no journal."""
    times = [segment.stat().st_mtime for segment in _segments(folder)]
    return max(times, default=None)


def _refuse_format(number: object, segment: TargetPath) -> None:
    raise TargetError(
        f"the journal {segment} has format {number}, this volseg reads {JOURNAL_FORMAT}; use the version that wrote "
        "it, or start again with --overwrite"
    )
