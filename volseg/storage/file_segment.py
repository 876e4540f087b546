"""The segment of a journal that one start writes, as a file that grows."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from volseg.storage.durable import sync_folder
from volseg.storage.marks import MarkEncoder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from volseg.storage.marks import Mark

_SYNC_SECONDS = 0.25
_GROUP = 4096
"""Marks that are written before that time has passed."""


class FileSegment:
    """Writes marks, as `ObjectSegments`.

    Attributes:
        seconds: between two flushes.
        group: marks that are flushed before.
    """

    seconds, group = _SYNC_SECONDS, _GROUP

    def __init__(self, folder: Path, run: str) -> None:
        self._file = _new_segment(folder)
        self.name = self._file.name
        self._encoder = MarkEncoder()
        self._append(self._encoder.header(run))
        sync_folder(folder)
        sync_folder(folder.parent)

    def append(self, marks: Iterable[Mark]) -> None:
        """Write and sync some marks."""
        self._append(self._encoder.encode(marks))

    def _append(self, records: bytes) -> None:
        self._file.write(records)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _new_segment(folder: Path) -> BinaryIO:
    """Create the next segment; drivers of several parts may do so at once."""
    while True:
        last = max((int(path.stem.split("-")[1]) for path in folder.glob("journal-*.marks")), default=0)
        with suppress(FileExistsError):
            return (folder / f"journal-{last + 1:04d}.marks").open("xb")
