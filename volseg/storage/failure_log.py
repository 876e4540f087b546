"""Blocks that a run gave up, with their reasons, beside its journal.

    0/.volseg/failures-0001.jsonl     one file per start that gave up blocks, one line per block

A block is failed as long as no mark of the journal says that it is done: a later start may have computed it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from volseg.errors import TargetError, redacted
from volseg.storage.object_path import ObjectPath
from volseg.text import parse_object

if TYPE_CHECKING:
    from volseg.storage.object_path import TargetPath

_MAX_TRACEBACK = 20_000
"""Characters; the last ones are kept."""
_LINES = 50
"""Of an object, which is put again with each."""


@dataclass(frozen=True, slots=True)
class FailedBlock:
    """A block that was given up.

    Attributes:
        block: its number.
        kind: name of the error's class.
        message: of the last attempt, one line.
        attempts: made.
        worker: of the last one.
        time: of the last one, ISO 8601 in UTC.
        traceback: of the last one; empty for errors that volseg raises on purpose.
    """

    block: int
    kind: str
    message: str
    attempts: int
    worker: str
    time: str
    traceback: str = ""


class FailureLog:
    """Appends failed blocks; the file is made with the first one.

    Args:
        folder: of the journal, whose lock the caller holds.
    """

    def __init__(self, folder: TargetPath) -> None:
        last = max((int(file.stem.partition("-")[2]) for file in _files(folder)), default=0)
        self._folder, self._number, self._lines = folder, last + 1, list[bytes]()

    def add(self, failed: FailedBlock) -> None:
        """Write one line, synced to the disk.

        Raises:
            TargetError: it cannot be written.
        """
        values = asdict(failed) | {"traceback": failed.traceback[-_MAX_TRACEBACK:]}
        path, line = self._folder / f"failures-{self._number:04d}.jsonl", json.dumps(redacted(values)).encode() + b"\n"
        if isinstance(path, ObjectPath):
            self._lines.append(line)
            path.write_bytes(b"".join(self._lines))
            if len(self._lines) == _LINES:
                self._number, self._lines = self._number + 1, []
            return
        try:
            with path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise TargetError(f"cannot write {path}: {error.strerror}; rerun with --resume") from error


def read_failures(folder: TargetPath) -> dict[int, FailedBlock]:
    """The last failure of each block; lines that cannot be read are left out."""
    found: dict[int, FailedBlock] = {}
    for file in _files(folder):
        for line in file.read_bytes().splitlines():
            failed = _parse(line)
            if failed is not None:
                found[failed.block] = failed
    return found


def _parse(line: bytes) -> FailedBlock | None:
    try:
        values: dict[str, Any] = dict(parse_object(line, "a failure"))
    except ValueError:
        return None
    types = {field.name: int if field.name in ("block", "attempts") else str for field in fields(FailedBlock)}
    if set(values) != set(types) or any(type(values[name]) is not kind for name, kind in types.items()):
        return None
    return FailedBlock(**values)


def _files(folder: TargetPath) -> list[TargetPath]:
    files = (file for file in folder.glob("failures-*.jsonl") if file.stem.partition("-")[2].isdecimal())
    return sorted(files, key=lambda file: file.name)
