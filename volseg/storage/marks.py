"""Marks of completed blocks as bytes: records of 72 bytes, each with a checksum of its own.

    header   kind 0, format, "volseg journal of RUN", the digest of the run's record
    text     kind 1, number, text        a worker or a reason to skip, which later marks name by its number
    mark     kind 2, ...
    more     kind 3, number, text        the next part of a text of more than 56 bytes

Integers are little-endian. A record whose checksum is wrong says nothing: the block of a damaged mark is computed
again.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from xxhash import xxh3_64_intdigest, xxh3_128_hexdigest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


JOURNAL_FORMAT = 3
"""Formats 1 and 2 were lines of JSON."""
RECORD_BYTES = 72
_TEXT_BYTES = 56
_HEADER, _TEXT, _MARK, _MORE = range(4)
_TEXT_RECORD = struct.Struct(f"<BxHI{_TEXT_BYTES}s")
"""Kind, bytes of the text that are left, number, text."""
_MARK_RECORD = struct.Struct("<BBHIQQfI16s16s")
"""Kind, number of the reason, attempt, number of the worker, block, bytes, seconds, absent chunks, two digests."""
_CHECKSUM = struct.Struct("<Q")
_TITLE = b"volseg journal"
_MAX_TEXT = 1024
"""Bytes of a text that are kept."""
_MAX_ATTEMPT, _MAX_ABSENT = 2**16 - 1, 2**32 - 1


@dataclass(frozen=True, slots=True)
class Mark:
    """A completed block.

    Attributes:
        block: the block's number.
        digest: of the written voxels, xxh3_128 in hexadecimal digits; empty if none were written.
        attempt: number of the successful attempt, from 1.
        worker: address and kind of the worker; the first 1024 bytes are kept.
        seconds: time on the worker.
        skipped: reason why nothing was computed and no shard written; empty if the block was computed.
        bytes: of its shards, as stored; 0 if there are none.
        file_digest: of the files of its shards, likewise.
        absent: number of chunks that the source lacked in its read box.
    """

    block: int
    digest: str
    attempt: int
    worker: str
    seconds: float
    skipped: str = ""
    bytes: int = 0
    file_digest: str = ""
    absent: int = 0


class Written(NamedTuple):
    """What was written of a box, for the mark of its block.

    Attributes:
        digest: of the voxels.
        bytes: of the shards, as stored.
        file_digest: of the files of the shards.
    """

    digest: str
    bytes: int
    file_digest: str


class MarkEncoder:
    """Turns marks into records; texts are written when they first occur."""

    def __init__(self) -> None:
        self._texts = {"": 0}

    @staticmethod
    def header(run: str = "") -> bytes:
        """The first record of a segment; `run` is the digest of the run's record."""
        title = _TITLE + (f" of {run}".encode() if run else b"")
        return _record(_TEXT_RECORD.pack(_HEADER, len(title), JOURNAL_FORMAT, title))

    def encode(self, marks: Iterable[Mark]) -> bytes:
        """The records of some marks."""
        return b"".join(self._records(marks))

    def _records(self, marks: Iterable[Mark]) -> Iterator[bytes]:
        for mark in marks:
            for text in (mark.skipped, mark.worker):
                if text not in self._texts:
                    self._texts[text] = len(self._texts)
                    content = text.encode()[:_MAX_TEXT]
                    for start in range(0, len(content), _TEXT_BYTES):
                        kind, rest = _MORE if start else _TEXT, content[start:]
                        yield _record(_TEXT_RECORD.pack(kind, len(rest), self._texts[text], rest[:_TEXT_BYTES]))
            yield _record(
                _MARK_RECORD.pack(
                    _MARK,
                    self._texts[mark.skipped],
                    min(mark.attempt, _MAX_ATTEMPT),
                    self._texts[mark.worker],
                    mark.block,
                    mark.bytes,
                    mark.seconds,
                    min(mark.absent, _MAX_ABSENT),
                    bytes.fromhex(mark.digest),
                    bytes.fromhex(mark.file_digest),
                )
            )


def run_of_header(content: bytes) -> str:
    """The run of a segment, from its first record; empty if it is damaged, or names none."""
    body = content[: RECORD_BYTES - _CHECKSUM.size]
    if len(content) != RECORD_BYTES or content != _record(body) or body[0] != _HEADER:
        return ""
    _, length, _, title = _TEXT_RECORD.unpack(body)
    return str(title[:length].decode(errors="replace").partition(" of ")[2])


class MarkDecoder:
    """Turns records into marks.

    Attributes:
        format: of the journal, once its header was read; 0 before.
        damaged: records so far whose checksum is wrong, or which name a text that is lost.
    """

    def __init__(self) -> None:
        self.format = self.damaged = 0
        self._texts = {0: b""}
        self._names = {0: ""}
        self._left: dict[int, int] = {}

    def decode(self, content: bytes) -> Iterator[Mark]:
        """Yield the marks of whole records; the rest of an interrupted one at the end is left out."""
        for start in range(0, len(content) - RECORD_BYTES + 1, RECORD_BYTES):
            body = content[start : start + RECORD_BYTES - _CHECKSUM.size]
            (checksum,) = _CHECKSUM.unpack_from(content, start + len(body))
            if xxh3_64_intdigest(body) != checksum:
                self.damaged += 1
            elif body[0] == _MARK:
                mark = self._mark(body)
                if mark is None:
                    self.damaged += 1
                else:
                    yield mark
            else:
                self._text(*_TEXT_RECORD.unpack(body))

    def _text(self, kind: int, length: int, number: int, text: bytes) -> None:
        """Take a text, or the next part of one; what follows a lost part is left out."""
        if kind == _HEADER:
            self.format = number
            self._texts, self._names, self._left = {0: b""}, {0: ""}, {}  # of merged segments each has its own
        elif kind == _TEXT:
            self._texts[number], self._left[number] = text[:length], length - _TEXT_BYTES
        elif self._left.get(number) == length:
            self._texts[number] += text[:length]
            self._left[number] -= _TEXT_BYTES
        if number in self._texts:
            self._names[number] = self._texts[number].decode(errors="replace")

    def _mark(self, body: bytes) -> Mark | None:
        _, reason, attempt, worker, block, stored, seconds, absent, digest, file_digest = _MARK_RECORD.unpack(body)
        if reason not in self._names or worker not in self._names:
            return None
        texts = (value.hex() if any(value) else "" for value in (digest, file_digest))
        voxels, files = texts
        return Mark(block, voxels, attempt, self._names[worker], seconds, self._names[reason], stored, files, absent)


def digest_of(content: bytes | memoryview) -> str:
    """Digest of bytes or of voxels in C order, xxh3_128 in hexadecimal digits."""
    return xxh3_128_hexdigest(content)


def joint_digest(digests: Iterable[str]) -> str:
    """Digest of several parts in their order: that of the part itself if there is one."""
    parts = list(digests)
    return parts[0] if len(parts) == 1 else digest_of("".join(parts).encode())


def _record(body: bytes) -> bytes:
    return body + _CHECKSUM.pack(xxh3_64_intdigest(body))
