"""Ranges of blocks that a verification found sound, in a file beside the journal: a stopped one can go on."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from volseg.storage import ObjectPath, write_whole

if TYPE_CHECKING:
    from volseg.storage import TargetPath

_WRITE_SECONDS = 5.0


class SoundRanges:
    """The ranges that were found sound under one key; the file is deleted at the end.

    Only the last start counts as an earlier one if the journal has the same marks. Nothing is kept where the folder
    cannot be written.
    """

    def __init__(self, folder: TargetPath, key: str, *, resume: bool) -> None:
        """Read the ranges of a stopped verification, or forget them.

        Args:
            folder: of the journal.
            key: of record, journal and what is compared.
            resume: go on after them.
        """
        self._path = folder / f"verify-{key}.txt"
        self._new: list[tuple[int, int]] = []
        self._written = time.monotonic()
        self._stored = b""
        self._known = self._read() if resume else set()
        if not resume:
            self.delete()

    def __contains__(self, blocks: tuple[int, int]) -> bool:
        return blocks in self._known

    def add(self, first: int, stop: int) -> None:
        """Add a range; it is written within seconds."""
        self._new.append((first, stop))
        if time.monotonic() - self._written >= _WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what was added."""
        lines = "".join(f"{first} {stop}\n" for first, stop in self._new)
        self._new, self._written = [], time.monotonic()
        if isinstance(self._path, ObjectPath):
            self._stored += lines.encode()
            with suppress(OSError):
                write_whole(self._path, self._stored)
            return
        with suppress(OSError), self._path.open("a", encoding="ascii") as file:
            file.write(lines)

    def delete(self) -> None:
        """Delete the file: the verification has ended."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _read(self) -> set[tuple[int, int]]:
        """Whole lines; others are read again."""
        known: set[tuple[int, int]] = set()
        with suppress(OSError, UnicodeDecodeError):
            for line in self._path.read_bytes().decode("ascii").splitlines(keepends=True):
                first, _, stop = line.partition(" ")
                if line.endswith("\n") and first.isdecimal() and stop[:-1].isdecimal():
                    known.add((int(first), int(stop)))
                    self._stored += line.encode()
        return known
