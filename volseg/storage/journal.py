"""Journal of completed blocks: append-only segments with one line per block, written only by the driver.

    0/.volseg/journal-0001.jsonl      one segment per start of the run; its first line names the format
    0/.volseg/journal-0002.jsonl
    0/.volseg/lock                    locked while a driver writes

A mark is written when the shards of its block are on the disk: their files are synced by the worker that wrote them,
their folders and then the segment by the driver, for all marks of a quarter of a second together. A line without a
newline was interrupted by the end of a driver: it is ignored, and its block is computed again.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from volseg.errors import TargetError
from volseg.storage.durable import sync_folder
from volseg.storage.lock import in_use, lock_file
from volseg.text import parse_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

JOURNAL_FORMAT = 2
"""Of the segments. Format 1 has no first line and no `bytes`."""
_SYNC_SECONDS = 0.25
_GROUP = 64
"""Marks that are written before that time has passed."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A completed block.

    Attributes:
        block: the block's number.
        digest: digest of the written voxels, uint8 in C order.
        attempt: number of the successful attempt, from 1.
        worker: address of the worker.
        seconds: time on the worker.
        skipped: reason why nothing was computed and no shard written; empty if the block was computed.
        bytes: of its shards, as stored; 0 if that is not known (format 1) or there are none.
    """

    block: int
    digest: str
    attempt: int
    worker: str
    seconds: float
    skipped: str = ""
    bytes: int = 0


class Journal:
    """The only writer of a target's marks."""

    def __init__(self, folder: Path) -> None:
        """Lock the folder and start a new segment.

        Raises:
            TargetError: another driver holds the lock, or the folder cannot be written.
        """
        self._pending: list[tuple[Mark, tuple[Path, ...]]] = []
        self._closing = False
        self._error: OSError | None = None
        self._known = {folder.parent, folder.parent.parent}  # folders that were there before the first block
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock_file(folder / "lock", in_use(folder.parent.parent))
            last = max((int(segment.stem.partition("-")[2]) for segment in _segments(folder)), default=0)
            self._segment = (folder / f"journal-{last + 1:04d}.jsonl").open("x")
            self._append([json.dumps({"format": JOURNAL_FORMAT})])
            sync_folder(folder)
            sync_folder(folder.parent)
        except TargetError:
            raise
        except OSError as error:
            raise TargetError(f"cannot write the journal in {folder}: {error.strerror}") from error
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write_groups, name="volseg-journal", daemon=True)
        self._thread.start()

    def mark(self, mark: Mark, folders: Iterable[Path] = ()) -> None:
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
            if len(self._pending) >= _GROUP:
                self._changed.notify()

    def close(self) -> None:
        """Write the last marks and release the lock.

        Raises:
            TargetError: a mark could not be written.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        with suppress(OSError):  # it holds what could not be written
            self._segment.close()
        self._lock.close()
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
                self._changed.wait_for(lambda: self._closing or len(self._pending) >= _GROUP, _SYNC_SECONDS)
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

    def _write(self, group: list[tuple[Mark, tuple[Path, ...]]]) -> None:
        """Sync the folders of shards, then write and sync their marks."""
        changed: dict[Path, None] = {}
        for folder in dict.fromkeys(folder for _, folders in group for folder in folders):
            changed[folder] = None
            changed.update(dict.fromkeys(self._new_parents(folder)))
        for folder in changed:
            sync_folder(folder)
        self._append([json.dumps(asdict(mark), separators=(",", ":")) for mark, _ in group])

    def _new_parents(self, folder: Path) -> Iterator[Path]:
        """Folders whose entry for a folder of shards, or for one above it, may not be on the disk yet."""
        for child in (folder, *folder.parents):
            if child in self._known:
                return
            self._known.add(child)
            yield child.parent

    def _append(self, lines: list[str]) -> None:
        self._segment.write("\n".join(lines) + "\n")
        self._segment.flush()
        os.fsync(self._segment.fileno())

    def _refuse_after_error(self) -> None:
        if self._error is not None:
            raise TargetError(
                f"cannot write the journal {self._segment.name}: {self._error.strerror}; "
                "free some space, then rerun with --resume"
            ) from self._error


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("journal-*.jsonl"))


def read_marks(folder: Path) -> Iterator[Mark]:
    """Yield the marks of a target, oldest first; incomplete lines are ignored.

    Raises:
        TargetError: a later version of volseg wrote the journal.
    """
    for segment in _segments(folder):
        with segment.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines):
                document = _parse(line)
                if number == 0 and "format" in document:
                    _refuse_later_format(document["format"], segment)
                elif "block" in document:
                    try:
                        yield Mark(**document)
                    except TypeError:
                        continue


def _parse(line: str) -> dict[str, Any]:
    """The JSON object of a line; empty if the line is incomplete."""
    if not line.endswith("\n"):
        return {}
    try:
        return parse_object(line)
    except ValueError:
        return {}


def _refuse_later_format(number: object, segment: Path) -> None:
    if number != JOURNAL_FORMAT:
        raise TargetError(
            f"the journal {segment} has format {number}, this volseg reads up to {JOURNAL_FORMAT}; use the version "
            "that wrote it, or start again with --overwrite"
        )
