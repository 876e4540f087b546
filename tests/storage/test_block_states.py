"""What arrays of marks say of blocks is what the marks say one by one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from volseg.blocks import BlockGrid, PyramidGrid, pyramid_levels
from volseg.pipeline import EMPTY
from volseg.prediction.resume import done_blocks
from volseg.storage import NO_SHARDS, Journal, Mark, read_mark_table, read_marks, size_table
from volseg.storage.mark_records import RECORD_BYTES, checksums, records_of
from volseg.storage.size_table import release_pages

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LEVELS = pyramid_levels((8, 64, 64), (8, 8, 8), (8, 8, 8), [(1, 2, 2)] * 4)
PYRAMID = PyramidGrid(BlockGrid.over((8, 64, 64), (8, 8, 8), (8, 8, 8)), LEVELS)
WORKERS = ("tcp://a:1, CPU", "tcp://b:1, GPU", "tcp://c:1")


def one_by_one(marks: list[Mark], accepts_missing: bool) -> dict[str, Any]:
    """The rules as they are written: the last mark of a block counts, and a coarser block is newer than its finer."""
    last: dict[int, tuple[int, Mark]] = {m.block: (turn, m) for turn, m in enumerate(marks) if m.block < PYRAMID.count}
    outdated: set[int] = set()
    for number in range(PYRAMID.base.count, PYRAMID.count):
        finer = [n for n in PYRAMID.children(number) if n in last]
        if number in last and any(n in outdated or last[n][0] > last[number][0] for n in finer):
            outdated.add(number)
    is_done = {
        number
        for number, (_, mark) in last.items()
        if number not in outdated and (accepts_missing or not mark.absent or number >= PYRAMID.base.count)
    }
    finest = {number for number in is_done if number < PYRAMID.base.count}
    sizes = np.full(PYRAMID.count, NO_SHARDS)
    for number in is_done:
        sizes[number] = NO_SHARDS if last[number][1].skipped else last[number][1].bytes
    return {
        "blocks": sorted(finest),
        "coarser": sorted(is_done - finest),
        "empty": sum(last[number][1].skipped == EMPTY for number in finest),
        "lacking": sorted(number for number in finest if last[number][1].absent),
        "sizes": sizes.tolist(),
    }


marks = st.builds(
    Mark,
    block=st.integers(0, PYRAMID.count + 1),
    digest=st.sampled_from(["", "a" * 32]),
    attempt=st.integers(1, 3),
    worker=st.sampled_from(WORKERS),
    seconds=st.just(0.5),
    skipped=st.sampled_from(["", EMPTY, "another reason"]),
    bytes=st.integers(0, 9),
    file_digest=st.sampled_from(["", "b" * 32]),
    absent=st.integers(0, 1),
)


@given(segments=st.lists(st.lists(marks, max_size=40), max_size=3), accepts=st.booleans())
def test_done_blocks_are_those_of_the_marks_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, segments: list[list[Mark]], accepts: bool
) -> None:
    folder = tmp_path_factory.mktemp("target") / "0" / ".volseg"
    folder.parent.mkdir()
    for segment in segments:
        with Journal(folder) as journal:
            for mark in segment:
                journal.mark(mark)
    written = [mark for segment in segments for mark in segment]
    assert list(read_marks(folder)) == written
    done = done_blocks(folder, PYRAMID, accepts_missing=accepts)
    assert {
        "blocks": list(done.blocks),
        "coarser": list(done.coarser),
        "empty": done.empty,
        "lacking": list(done.lacking),
        "sizes": done.sizes.tolist(),
    } == one_by_one(written, accepts)
    whole = [m for m in written if m.skipped or (m.bytes and m.digest and m.file_digest)]
    table, expected = read_mark_table(folder, PYRAMID), one_by_one(whole, accepts_missing=True)
    assert table.entries["state"].nonzero()[0].tolist() == sorted(expected["blocks"] + expected["coarser"])
    assert table.damaged == sum(m not in whole or m.block >= PYRAMID.count for m in written)


@given(st.binary(max_size=5 * RECORD_BYTES), st.integers(0, 3))
def test_checksums_are_those_of_xxhash(content: bytes, copies: int) -> None:
    from xxhash import xxh3_64_intdigest

    content = content * 4**copies
    bodies = [content[at : at + 64] for at in range(0, len(content) - RECORD_BYTES + 1, RECORD_BYTES)]
    assert checksums(records_of(content)).tolist() == [xxh3_64_intdigest(body) for body in bodies]


def test_a_large_table_of_sizes_is_a_file_that_nothing_is_left_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[size_table.__module__], "_IN_MEMORY", 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    table = size_table(4500)
    assert isinstance(table, np.memmap)
    table[[3, 4499]] = 7
    release_pages(table)
    assert table.sum() == 2 * 7 - 4498
    assert not list(tmp_path.iterdir())
