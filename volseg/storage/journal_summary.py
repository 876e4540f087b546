"""A summary beside the journal of a run of very many blocks: what its marks say, so that a status need not read them.

    summary    a line with the checksum of the rest
               a line of JSON: bytes and texts of each segment that it covers, what is counted
               three bitmaps: blocks with a mark, empty ones, those that lacked chunks

It is made of the journal alone, once a minute, and never replaces it: one that is damaged or does not fit is ignored.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from xxhash import xxh3_64_hexdigest

from volseg.storage.block_states import LACKING, MARKED, WAS_EMPTY, BlockStates, Tally
from volseg.storage.journal import read_mark_batches
from volseg.storage.marks import SegmentStart

if TYPE_CHECKING:
    from volseg.blocks import PyramidGrid
    from volseg.storage.object_path import TargetPath

LEAST_BLOCKS = 1 << 22
"""Blocks of a run that has a summary: the journal of fewer is read in two seconds."""
_SECONDS = 60.0
_NAME = "summary"
_FLAGS = (MARKED, WAS_EMPTY, LACKING)


class JournalReader:
    """Reads a journal on, from where it stopped before.

    Args:
        folder: of the journal.
        pyramid: the blocks.
        empty: reason of a mark to skip an empty block.

    Attributes:
        states: what the marks so far say.
    """

    def __init__(self, folder: TargetPath, pyramid: PyramidGrid, empty: str) -> None:
        self._folder, self.states = folder, BlockStates(pyramid, empty)
        self._starts: dict[str, SegmentStart] = {}
        self._outdated: list[int] = []

    def read(self) -> BlockStates:
        """Take the marks that are new.

        Raises:
            TargetError: another version of volseg wrote the journal.
        """
        damaged, ends = list[int](), dict[str, SegmentStart]()
        for batch in read_mark_batches(self._folder, lambda _, records: damaged.append(records), self._starts, ends):
            self.states.add(batch)
        self.states.damaged += sum(damaged)
        self._starts = ends
        self._outdated = self.states.settle().tolist()
        return self.states

    def write(self) -> None:
        """Write the summary of what was read, beside a journal on a path."""
        assert isinstance(self._folder, Path)
        states, tally = self.states.states, self.states.tally
        bits = b"".join(np.packbits((states & flag) > 0).tobytes() for flag in _FLAGS)
        header = {
            "segments": {name: [start.bytes, list(start.names.items())] for name, start in self._starts.items()},
            "outdated": self._outdated,
            "damaged": self.states.damaged,
            "tally": [tally.retried, tally.computed, tally.seconds, dict(tally.kinds)],
        }
        content = json.dumps(header).encode() + b"\n" + bits
        partial = self._folder / f".{_NAME}.partial"
        partial.write_bytes(xxh3_64_hexdigest(content).encode() + b"\n" + content)
        partial.replace(self._folder / _NAME)

    def restore(self) -> None:
        """Begin with the summary, if there is one that fits the journal."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            checksum, _, content = (self._folder / _NAME).read_bytes().partition(b"\n")
            if xxh3_64_hexdigest(content).encode() != checksum:
                return
            line, _, bits = content.partition(b"\n")
            header: dict[str, Any] = json.loads(line)
            starts = {name: SegmentStart(size, dict(names)) for name, (size, names) in header["segments"].items()}
            count, size = len(self.states.states), -(-len(self.states.states) // 8)
            fits = all((self._folder / name).stat().st_size >= start.bytes for name, start in starts.items())
            if not fits or len(bits) != len(_FLAGS) * size:
                return
            retried, computed, seconds, kinds = header["tally"]
            states = np.zeros(count, np.uint8)
            for at, flag in enumerate(_FLAGS):
                part = np.frombuffer(bits, np.uint8, size, at * size)
                states |= np.unpackbits(part, count=count) * np.uint8(flag)
            self.states.restore(
                states, header["outdated"], Tally(retried, computed, seconds, Counter(kinds)), header["damaged"]
            )
            self._starts = starts


class SummaryWriter:
    """Writes the summary of a running run in a thread, and at its end; nothing for runs of few blocks.

    Args:
        folder, pyramid, empty: as of `JournalReader`; in an object store there is none.
    """

    def __init__(self, folder: TargetPath, pyramid: PyramidGrid, empty: str) -> None:
        has_one = pyramid.base.count >= LEAST_BLOCKS and isinstance(folder, Path)
        self._reader = JournalReader(folder, pyramid, empty) if has_one else None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="volseg-summary", daemon=True)

    def __enter__(self) -> Self:
        if self._reader is not None:
            self._reader.restore()
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._reader is not None:
            self._stop.set()
            self._thread.join()
            self._update()

    def _work(self) -> None:
        while not self._stop.wait(_SECONDS):
            self._update()

    def _update(self) -> None:
        if self._reader is not None:
            with suppress(OSError):  # a disk that is full is the journal's to report
                self._reader.read()
                self._reader.write()
