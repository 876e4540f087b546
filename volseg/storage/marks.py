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
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from xxhash import xxh3_64_intdigest, xxh3_128_hexdigest

from volseg.storage.mark_records import RECORD_BYTES, checksums, records_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

JOURNAL_FORMAT = 3
"""Formats 1 and 2 were lines of JSON."""
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


@dataclass(frozen=True, slots=True)
class SegmentStart:
    """A place in a segment.

    Attributes:
        bytes: before it, of whole records.
        names: of the texts before it, by their number.
    """

    bytes: int
    names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MarkBatch:
    """Marks of a segment in their order, as arrays.

    Attributes:
        marks: those that are whole, as `MARK_RECORD`.
        names: workers and reasons by their number; 0 is the empty text.
    """

    marks: NDArray[np.void]
    names: Mapping[int, str]

    def __iter__(self) -> Iterator[Mark]:
        """Iterate over the marks one by one."""
        for _, reason, attempt, worker, block, stored, seconds, absent, *digests, _ in self.marks.tolist():
            voxels, files = (value.hex() if any(value) else "" for value in digests)
            yield Mark(block, voxels, attempt, self.names[worker], seconds, self.names[reason], stored, files, absent)


class MarkDecoder:
    """Turns records into marks.

    Args:
        names: texts by their number, of the records before the first to decode.

    Attributes:
        format: of the journal, once its header was read; 0 before.
        damaged: records so far whose checksum is wrong, or which name a text that is lost.
        names: of the texts so far, by their number.
    """

    def __init__(self, names: Mapping[int, str] | None = None) -> None:
        self.format = self.damaged = 0
        self._texts = {0: b""}
        self.names = {0: "", **(names or {})}
        self._left: dict[int, int] = {}

    def decode(self, content: bytes) -> Iterator[Mark]:
        """Yield the marks of whole records; the rest of an interrupted one at the end is left out."""
        for batch in self.decode_batches(content):
            yield from batch

    def decode_batches(self, content: bytes) -> Iterator[MarkBatch]:
        """As `decode`, without an object for each; of merged segments each has texts of its own."""
        records = records_of(content)
        heads = np.flatnonzero(records["kind"] == _HEADER)
        starts = [0, *heads[heads > 0].tolist(), len(records)]
        for start, stop in pairwise(starts):
            yield self._decode(content[start * RECORD_BYTES : stop * RECORD_BYTES] if len(starts) > 2 else content)

    def _decode(self, content: bytes) -> MarkBatch:
        records = records_of(content)
        is_whole, is_mark = records["checksum"] == checksums(records), records["kind"] == _MARK
        for at in np.flatnonzero(is_whole & ~is_mark):
            self._text(*_TEXT_RECORD.unpack_from(content, int(at) * RECORD_BYTES))
        self.damaged += len(records) - int(np.count_nonzero(is_whole))
        marks = records if (kept := is_whole & is_mark).all() else records[kept]
        is_known = self._are_known(marks["worker"]) & self._are_known(marks["reason"])
        if not is_known.all():  # a text precedes the marks that name it: it is lost
            self.damaged += int(np.count_nonzero(~is_known))
            marks = marks[is_known]
        return MarkBatch(marks, self.names)

    def _are_known(self, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = np.isin(numbers, np.fromiter(self.names, np.int64))
        return found

    def _text(self, kind: int, length: int, number: int, text: bytes) -> None:
        """Take a text, or the next part of one; what follows a lost part is left out."""
        if kind == _HEADER:
            self.format = number
            self._texts, self.names, self._left = {0: b""}, {0: ""}, {}  # of merged segments each has its own
        elif kind == _TEXT:
            self._texts[number], self._left[number] = text[:length], length - _TEXT_BYTES
        elif self._left.get(number) == length:
            self._texts[number] += text[:length]
            self._left[number] -= _TEXT_BYTES
        if number in self._texts:
            self.names[number] = self._texts[number].decode(errors="replace")


def digest_of(content: bytes | memoryview) -> str:
    """Digest of bytes or of voxels in C order, xxh3_128 in hexadecimal digits."""
    return xxh3_128_hexdigest(content)


def joint_digest(digests: Iterable[str]) -> str:
    """Digest of several parts in their order: that of the part itself if there is one."""
    parts = list(digests)
    return parts[0] if len(parts) == 1 else digest_of("".join(parts).encode())


def _record(body: bytes) -> bytes:
    return body + _CHECKSUM.pack(xxh3_64_intdigest(body))
