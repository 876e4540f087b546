"""Which blocks are done: append-only segments of one line a block, written by the driver alone.

    0/.volseg/journal-0001.jsonl      one segment for each time that the run was started
    0/.volseg/journal-0002.jsonl
    0/.volseg/lock                    held while a driver writes

A line without its end is one that a killed driver did not finish: it counts for nothing, and its block is done again.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TextIO

from volseg.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

_SYNC_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Mark:
    """One block that is done.

    Attributes:
        block: its number.
        digest: of the voxels written: uint8, C order.
        attempt: 1 for a block that succeeded at once.
        worker: who did it.
        seconds: how long it took there.
        skipped: why nothing was computed, so that there is no shard; empty where there is one.
    """

    block: int
    digest: str
    attempt: int
    worker: str
    seconds: float
    skipped: str = ""


class Journal:
    """The one writer of a target's marks."""

    def __init__(self, folder: Path) -> None:
        """Take the folder's lock and begin a new segment.

        Raises:
            TargetError: another driver holds the lock, or the folder cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock: TextIO = (folder / "lock").open("a+")
        except OSError as error:
            raise TargetError(f"cannot write the journal in {folder}: {error.strerror}") from error
        _take(self._lock, folder)
        last = max((int(segment.stem.partition("-")[2]) for segment in _segments(folder)), default=0)
        self._segment = (folder / f"journal-{last + 1:04d}.jsonl").open("x")
        self._synced = time.monotonic()

    def mark(self, mark: Mark) -> None:
        """Append a mark; it outlives this process at once. It is flushed to the disk every two seconds of marks.

        Raises:
            TargetError: the disk does not take it.
        """
        try:
            self._segment.write(json.dumps(asdict(mark), separators=(",", ":")) + "\n")
            self._segment.flush()
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._segment.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise TargetError(
                f"cannot write the journal {self._segment.name}: {error.strerror}; make room, then give --resume"
            ) from error

    def close(self) -> None:
        """Write what is left and let the lock go."""
        os.fsync(self._segment.fileno())
        self._segment.close()
        self._lock.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def refuse_if_written(folder: Path) -> None:
    """Refuse to touch a target that another driver is writing.

    Raises:
        TargetError: its lock is held.
    """
    if (folder / "lock").is_file():
        with (folder / "lock").open("a+") as lock:
            _take(lock, folder)


def _take(lock: TextIO, folder: Path) -> None:
    """Take the lock, or close it and say why not."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        if isinstance(error, BlockingIOError):
            target = folder.parent.parent
            raise TargetError(f"another run is writing into {target}; wait for it, or stop it first") from None
        raise TargetError(
            f"the file system of {folder} gives no locks ({error.strerror}); mount it with locks (Lustre: -o flock), "
            "or write to another one"
        ) from error


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("journal-*.jsonl"))


def read_marks(folder: Path) -> Iterator[Mark]:
    """Every mark of a target, oldest first; unfinished lines are passed over."""
    for segment in _segments(folder):
        with segment.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                mark = _parsed(line)
                if mark is not None:
                    yield mark


def _parsed(line: str) -> Mark | None:
    if not line.endswith("\n"):
        return None
    try:
        return Mark(**json.loads(line))
    except (ValueError, TypeError):
        return None
