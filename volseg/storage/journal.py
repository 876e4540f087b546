"""Journal of completed blocks: append-only segments with one line per block, written only by the driver.

    0/.volseg/journal-0001.jsonl      one segment per start of the run
    0/.volseg/journal-0002.jsonl
    0/.volseg/lock                    locked while a driver writes

A line without a newline was interrupted by the end of a driver: it is ignored, and its block is computed again.
"""

from __future__ import annotations

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
    """A completed block.

    Attributes:
        block: the block's number.
        digest: digest of the written voxels, uint8 in C order.
        attempt: number of the successful attempt, from 1.
        worker: address of the worker.
        seconds: time on the worker.
        skipped: reason why nothing was computed and no shard written; empty if the block was computed.
    """

    block: int
    digest: str
    attempt: int
    worker: str
    seconds: float
    skipped: str = ""


class Journal:
    """The only writer of a target's marks."""

    def __init__(self, folder: Path) -> None:
        """Lock the folder and start a new segment.

        Raises:
            TargetError: another driver holds the lock, or the folder cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock: TextIO = (folder / "lock").open("a+")
        except OSError as error:
            raise TargetError(f"cannot write the journal in {folder}: {error.strerror}") from error
        _lock(self._lock, folder)
        last = max((int(segment.stem.partition("-")[2]) for segment in _segments(folder)), default=0)
        self._segment = (folder / f"journal-{last + 1:04d}.jsonl").open("x")
        self._synced = time.monotonic()

    def mark(self, mark: Mark) -> None:
        """Append a mark, so that it outlives this process; it is synced to the disk every two seconds.

        Raises:
            TargetError: the mark cannot be written.
        """
        try:
            self._segment.write(json.dumps(asdict(mark), separators=(",", ":")) + "\n")
            self._segment.flush()
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._segment.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise TargetError(
                f"cannot write the journal {self._segment.name}: {error.strerror}; "
                "free some space, then rerun with --resume"
            ) from error

    def close(self) -> None:
        """Sync the segment and release the lock."""
        os.fsync(self._segment.fileno())
        self._segment.close()
        self._lock.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def refuse_if_locked(folder: Path) -> None:
    """Refuse to change a target that another driver is writing.

    Raises:
        TargetError: the lock is held.
    """
    if (folder / "lock").is_file():
        with (folder / "lock").open("a+") as lock:
            _lock(lock, folder)


def _lock(file: TextIO, folder: Path) -> None:
    """Lock the file, or close it and raise TargetError."""
    try:
        import fcntl  # noqa: PLC0415 - Windows has none

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError as error:
        file.close()
        raise TargetError(f"cannot lock the journal in {folder}: no fcntl; run volseg on Linux or macOS") from error
    except OSError as error:
        file.close()
        if isinstance(error, BlockingIOError):
            target = folder.parent.parent
            raise TargetError(f"another run is writing into {target}; wait for it to end, or stop it") from None
        raise TargetError(
            f"cannot lock the journal in {folder}: {error.strerror}; mount the file system with locks "
            "(Lustre: -o flock) or write to another one"
        ) from error


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("journal-*.jsonl"))


def read_marks(folder: Path) -> Iterator[Mark]:
    """Yield the marks of a target, oldest first; incomplete lines are ignored."""
    for segment in _segments(folder):
        with segment.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                mark = _parse_mark(line)
                if mark is not None:
                    yield mark


def _parse_mark(line: str) -> Mark | None:
    if not line.endswith("\n"):
        return None
    try:
        return Mark(**json.loads(line))
    except (ValueError, TypeError):
        return None
