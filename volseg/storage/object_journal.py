"""The segments of a journal in an object store: each flush of marks is an object, and the owner merges them.

    0/.volseg/journal-EPOCH-FIRST-LAST.marks     the flushes FIRST to LAST, which the owner of that epoch wrote
    0/.volseg/epoch-EPOCH.json                   what that owner found and accepted of earlier ones, and its run

Segments of an earlier epoch count only if the newest of the second kind names them: a flush of an owner that has lost
its lease, which lands late, says nothing. Of merged segments and their parts the merged ones count.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

from volseg.errors import TargetError, TargetLostError
from volseg.storage.lease import held_lease
from volseg.storage.marks import MarkEncoder
from volseg.text import parse_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from volseg.storage.marks import Mark
    from volseg.storage.object_path import ObjectPath

MAX_SMALL = 256
"""Segments below `FULL_BYTES` at which they are merged."""
FULL_BYTES = 64 << 20
"""Bytes from which a segment is not merged again."""
_NAME = re.compile(r"journal-(\d+)-(\d+)-(\d+)\.marks")
_EPOCH = re.compile(r"epoch-(\d+)\.json")


class _Segment(NamedTuple):
    """A segment: the flushes that it holds, from 1, the epoch of its owner, and its place; 0 for one from a disk."""

    first: int
    last: int
    epoch: int
    path: ObjectPath


def _segment_of(path: ObjectPath) -> _Segment:
    found = _NAME.fullmatch(path.name)
    epoch, first, last = map(int, found.groups()) if found else (0, 0, 0)
    return _Segment(first, last, epoch, path)


class _Journal(NamedTuple):
    """What counts of a journal: segments in their order, those to delete, the newest owner's epoch and run."""

    segments: list[_Segment]
    others: list[_Segment]
    epoch: int
    run: str


def _read_journal(folder: ObjectPath) -> _Journal:
    files = list(folder.files())
    found = [_segment_of(path) for path in files if path.name.startswith("journal-") and path.name.endswith(".marks")]
    epochs = {int(match[1]): path for path in files if (match := _EPOCH.fullmatch(path.name))}
    newest = max(epochs, default=0)
    accepted, run = None, ""
    if newest:
        manifest = parse_object(epochs[newest].read_bytes(), epochs[newest].name)
        accepted, run = set(manifest["accepted"]), str(manifest["run"])
    # Before the first manifest there are marks that were copied from a disk, and none of an owner of a lease.
    counted = [s for s in found if s.epoch == newest or (accepted is not None and s.path.name in accepted)]
    kept: list[_Segment] = []
    for segment in sorted(counted, key=lambda s: (s.first, -s.last, s.path.name)):
        if not (segment.first and kept and segment.last <= kept[-1].last):
            kept.append(segment)
    return _Journal(kept, [s for s in found if s not in kept], newest, run)


def object_segments(folder: ObjectPath) -> list[ObjectPath]:
    """Segments of a journal that count, oldest first."""
    return [segment.path for segment in _read_journal(folder).segments]


def object_run(folder: ObjectPath) -> set[str]:
    """Digest of the record of the run that wrote a journal last, if any did."""
    return {_read_journal(folder).run} - {""}


class ObjectSegments:
    """Writes the marks of one start, under its lease.

    Attributes:
        seconds: between two flushes.
        group: marks that are flushed before.
    """

    seconds = 2.0
    group = 1 << 16

    def __init__(self, folder: ObjectPath, run: str) -> None:
        """Accept what earlier owners wrote.

        Raises:
            TargetError: this process does not hold the lease, or another start has begun with this epoch.
        """
        lease = held_lease(folder)
        if lease is None:
            raise TargetError(f"the lease of {folder} is not held")
        self.name = str(folder)
        self._folder, self._run, self._lease = folder, run, lease
        journal = _read_journal(folder)
        if run and journal.run not in ("", run):  # a manifest of a run that was replaced, which landed late
            journal = journal._replace(segments=[], others=[*journal.segments, *journal.others])
        names = [segment.path.name for segment in journal.segments]
        path = folder / f"epoch-{lease.epoch:06d}.json"
        content = json.dumps({"run": run, "owner": lease.epoch, "accepted": names}).encode()
        lease.confirm()
        if path.store.create(path.key, content) is None:
            raise TargetLostError(f"another start of the run has begun in {folder}; this one ends")
        self._segments = [(s, s.path.stat().st_size) for s in journal.segments]
        self._next = max((s.last for s in journal.segments), default=0) + 1
        dead = [s.path.key for s in journal.others]
        dead += [(folder / f"epoch-{journal.epoch:06d}.json").key] if 0 < journal.epoch < lease.epoch else []
        if dead:
            path.store.delete(dead)
        lease.announce(run)

    def append(self, marks: Iterable[Mark]) -> None:
        """Write some marks as one object; returns when it is stored."""
        encoder = MarkEncoder()
        self._put(self._next, self._next, encoder.header(self._run) + encoder.encode(marks))
        self._next += 1
        small = [(s, size) for s, size in self._segments if size < FULL_BYTES and s.first]
        if len(small) >= MAX_SMALL:
            self._merge(small)

    def _put(self, first: int, last: int, content: bytes) -> None:
        path = self._folder / f"journal-{self._lease.epoch:06d}-{first:09d}-{last:09d}.marks"
        while True:
            self._lease.confirm()
            try:
                path.write_bytes(content)
            except TargetError:  # as long as the lease can be renewed the store answers
                self._lease.await_answer()
                continue
            break
        self._segments.append((_Segment(first, last, self._lease.epoch, path), len(content)))

    def _merge(self, small: list[tuple[_Segment, int]]) -> None:
        """Put neighbouring segments together, up to the size of a full one."""
        for part in _parts(small):
            content = b"".join(segment.path.read_bytes() for segment in part)
            self._segments = [(s, size) for s, size in self._segments if s not in part]
            self._put(part[0].first, part[-1].last, content)
            self._folder.store.delete([segment.path.key for segment in part])

    def close(self) -> None:
        """Do nothing: each flush is whole."""


def _parts(small: list[tuple[_Segment, int]]) -> Iterator[list[_Segment]]:
    """Runs of neighbouring segments, of at least two, up to the size of a full one."""
    part: list[_Segment] = []
    held = 0
    for segment, size in sorted(small, key=lambda item: item[0].first):
        if part and (held >= FULL_BYTES or segment.first != part[-1].last + 1):
            if len(part) > 1:
                yield part
            part, held = [], 0
        part.append(segment)
        held += size
    if len(part) > 1:
        yield part
