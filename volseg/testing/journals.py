"""Journals for tests: segments from which marks were taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volseg.storage import read_marks
from volseg.storage.marks import MarkEncoder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from volseg.storage import Mark


def keep_marks(target: Path, keep: Callable[[Mark], bool]) -> int:
    """Write the journal of a target anew with some of its marks, in one segment; returns their number."""
    folder = target / "0" / ".volseg"
    marks = [mark for mark in read_marks(folder) if keep(mark)]
    first, *others = sorted(folder.glob("journal-*.marks"))
    for segment in others:
        segment.unlink()
    encoder = MarkEncoder()
    first.write_bytes(encoder.header() + encoder.encode(marks))
    return len(marks)
