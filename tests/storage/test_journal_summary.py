"""A status that begins with a summary says what the whole journal says."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.storage.test_block_states import PYRAMID, WORKERS
from volseg.pipeline import EMPTY
from volseg.storage import Journal, JournalReader, Mark, SummaryWriter, journal_summary

if TYPE_CHECKING:
    from pathlib import Path


def write_segment(folder: Path, rng: random.Random, count: int) -> None:
    with Journal(folder) as journal:
        for _ in range(count):
            skipped, absent = rng.choice(["", EMPTY]), rng.random() < 0.2
            number, worker = rng.randrange(PYRAMID.count), f"{rng.choice(WORKERS)} {rng.randrange(3)}"
            journal.mark(Mark(number, "a" * 32, rng.randint(1, 2), worker, 0.5, skipped, 1, "b" * 32, absent))


def read(folder: Path, *, summary: bool) -> tuple[object, ...]:
    reader = JournalReader(folder, PYRAMID, EMPTY)
    if summary:
        reader.restore()
        assert reader._starts
    states = reader.read()
    return states.states.tolist(), states.damaged, states.tally


@pytest.mark.parametrize("seed", range(8))
def test_a_summary_and_later_marks_say_what_all_marks_say(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, folder = random.Random(seed), tmp_path / "0" / ".volseg"
    folder.parent.mkdir()
    monkeypatch.setattr(journal_summary, "LEAST_BLOCKS", 1)
    for _ in range(3):
        with SummaryWriter(folder, PYRAMID, EMPTY):
            write_segment(folder, rng, rng.randrange(60))
        assert read(folder, summary=True) == read(folder, summary=False)
        last = max(folder.glob("journal-*.marks"))
        content = last.read_bytes()
        last.write_bytes(content[: rng.randrange(len(content))])
        reader = JournalReader(folder, PYRAMID, EMPTY)
        reader.read()
        reader.write()
        last.write_bytes(content + b"torn")
        assert read(folder, summary=True) == read(folder, summary=False)
        last.write_bytes(content)


def test_a_damaged_summary_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "0" / ".volseg"
    folder.parent.mkdir()
    monkeypatch.setattr(journal_summary, "LEAST_BLOCKS", 1)
    with SummaryWriter(folder, PYRAMID, EMPTY):
        write_segment(folder, random.Random(1), 50)
    content = (folder / "summary").read_bytes()
    for at in np.linspace(0, len(content) - 1, 40).astype(int):
        (folder / "summary").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        reader = JournalReader(folder, PYRAMID, EMPTY)
        reader.restore()
        assert not reader._starts
    (folder / "summary").write_bytes(content)
    (folder / "journal-0001.marks").write_bytes(b"")
    reader = JournalReader(folder, PYRAMID, EMPTY)
    reader.restore()
    assert not reader._starts


def test_runs_of_few_blocks_have_no_summary(tmp_path: Path) -> None:
    folder = tmp_path / "0" / ".volseg"
    folder.parent.mkdir()
    with SummaryWriter(folder, PYRAMID, EMPTY):
        write_segment(folder, random.Random(1), 50)
    assert not (folder / "summary").exists()
