"""Marks outlive a driver, damaged ones are lost alone, and one driver writes at a time."""

from __future__ import annotations

import dataclasses
import fcntl
from typing import TYPE_CHECKING, TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.errors import TargetError
from volseg.storage import Journal, Mark, RecordError, marks, read_marks, read_record
from volseg.storage.journal import journal_runs
from volseg.storage.mark_records import RECORD_BYTES
from volseg.storage.marks import JOURNAL_FORMAT, MarkDecoder, MarkEncoder
from volseg.storage.publish import staged
from volseg.testing.factories import make_volume, read_volume
from volseg.testing.targets import make_target, noise_record

if TYPE_CHECKING:
    from pathlib import Path


def mark(number: int) -> Mark:
    return Mark(number, f"{number + 1:032x}", 1, "tcp://127.0.0.1:1", 0.5)


def test_marks_are_read_as_written(tmp_path: Path) -> None:
    with Journal(tmp_path / "0" / ".volseg") as journal:
        for number in range(5):
            journal.mark(mark(number))
    assert list(read_marks(tmp_path / "0" / ".volseg")) == [mark(number) for number in range(5)]


@pytest.mark.parametrize("length", [1, RECORD_BYTES - 1])
def test_an_interrupted_record_is_ignored(tmp_path: Path, length: int) -> None:
    folder = tmp_path / "0" / ".volseg"
    with Journal(folder) as journal:
        journal.mark(mark(1))
    with (folder / "journal-0001.marks").open("ab") as segment:
        segment.write(bytes(length))
    with Journal(folder) as journal:
        journal.mark(mark(2))
    assert list(read_marks(folder)) == [mark(1), mark(2)]


@given(
    st.builds(
        Mark,
        block=st.integers(0, 2**64 - 1),
        digest=st.sampled_from(["", "0" * 31 + "1", "f" * 32]),
        attempt=st.integers(1, 2**16 - 1),
        worker=st.text("abcé:/. 0", max_size=200),
        seconds=st.floats(0, 1e6, width=32),
        skipped=st.sampled_from(["", "empty"]),
        bytes=st.integers(0, 2**64 - 1),
        file_digest=st.sampled_from(["", "a" * 32]),
    )
)
def test_any_mark_is_read_as_written(one: Mark) -> None:
    encoder, decoder = MarkEncoder(), MarkDecoder()
    content = encoder.header() + encoder.encode([one, one])
    assert list(decoder.decode(content)) == [one, one]
    assert (decoder.format, decoder.damaged) == (JOURNAL_FORMAT, 0)


def test_a_damaged_part_of_a_long_text_shortens_it_and_loses_no_mark() -> None:
    encoder = MarkEncoder()
    long = dataclasses.replace(mark(1), worker="0123456789" * 20)
    content = encoder.header() + encoder.encode([long, mark(2)])
    for part, kept in ((2, 56), (3, 112)):
        flipped = bytearray(content)
        flipped[part * RECORD_BYTES + 20] ^= 4
        decoder = MarkDecoder()
        assert list(decoder.decode(bytes(flipped))) == [dataclasses.replace(long, worker=long.worker[:kept]), mark(2)]
        assert decoder.damaged == 1


def test_a_flipped_bit_loses_one_mark_and_changes_none(tmp_path: Path) -> None:
    folder = tmp_path / "0" / ".volseg"
    written = [mark(number) for number in range(6)]
    with Journal(folder) as journal:
        for one in written:
            journal.mark(one)
    segment = folder / "journal-0001.marks"
    content = segment.read_bytes()
    for place in range(2 * RECORD_BYTES, len(content)):  # behind the header and the name of the worker
        segment.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        damage: list[tuple[Path, int]] = []
        lost = (place - 2 * RECORD_BYTES) // RECORD_BYTES
        assert list(read_marks(folder, lambda *found, damage=damage: damage.append(found))) == [
            one for one in written if one.block != lost
        ]
        assert damage == [(segment, 1)]


def test_marks_whose_worker_is_lost_are_lost(tmp_path: Path) -> None:
    folder = tmp_path / "0" / ".volseg"
    with Journal(folder) as journal:
        journal.mark(mark(1))
    segment = folder / "journal-0001.marks"
    content = bytearray(segment.read_bytes())
    content[RECORD_BYTES + 9] ^= 1
    segment.write_bytes(content)
    assert not list(read_marks(folder))


@pytest.mark.parametrize("name", ["journal-0001.jsonl", "journal-0001.marks"])
def test_a_journal_of_another_format_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "JOURNAL_FORMAT", 9)
    (tmp_path / name).write_bytes(MarkEncoder.header())
    with pytest.raises(TargetError, match=rf"{name} has format (1 or 2|9), this volseg reads 3; use the version"):
        list(read_marks(tmp_path))


def test_each_start_writes_one_segment(tmp_path: Path) -> None:
    folder = tmp_path / "0" / ".volseg"
    for _ in range(3):
        with Journal(folder) as journal:
            for number in range(100):
                journal.mark(mark(number))
    assert len(list(folder.iterdir())) == 3 + 1  # the lock


def test_a_second_driver_is_refused_while_the_first_writes(tmp_path: Path) -> None:
    folder = tmp_path / "t.zarr" / "0" / ".volseg"
    folder.parent.mkdir(parents=True)
    with Journal(folder), pytest.raises(TargetError, match="another run is writing into .*t.zarr"):
        Journal(folder)
    Journal(folder).close()


@pytest.fixture(autouse=True)
def array_folder(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()


def test_the_lock_of_a_target_that_was_replaced_meanwhile_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0").rmdir()
    path, flock = make_volume(tmp_path / "t.zarr", (2, 32, 32)), fcntl.flock

    def after_another(file: TextIO, operation: int) -> None:
        monkeypatch.undo()
        replace(path)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", after_another)
    with pytest.raises(TargetError, match="t.zarr was replaced by another run before this one began"):
        Journal(path / "0" / ".volseg")
    assert not list(path.rglob("*.marks"))


def replace(path: Path) -> None:
    with staged(path, overwrite=True) as new:
        make_volume(new, (2, 16, 16))


def test_a_target_that_is_being_written_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "0").rmdir()
    path = make_volume(tmp_path / "t.zarr", (2, 32, 32))
    with Journal(path / "0" / ".volseg"), pytest.raises(TargetError, match="another run is writing into .*t.zarr"):
        replace(path)
    assert read_volume(path).shape == (2, 32, 32)
    replace(path)
    assert read_volume(path).shape == (2, 16, 16)
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.zarr"]


def test_a_journal_names_its_run_and_another_record_beside_it_is_refused(tmp_path: Path) -> None:
    target, other = (make_target(tmp_path / f"{n}.zarr", noise_record(block=(n, 16, 32))) for n in (1, 2))
    run = read_record(target).digest
    assert journal_runs(target / "0" / ".volseg") == {run}
    (target / "zarr.json").write_bytes((other / "zarr.json").read_bytes())
    with pytest.raises(RecordError, match=f"is that of another map, or its journal: that is of the run {run}, and"):
        read_record(target)


def test_merged_segments_keep_their_own_texts() -> None:
    def segment(block: int, worker: str, skipped: str) -> bytes:
        encoder = MarkEncoder()
        return encoder.header("run") + encoder.encode([Mark(block, "", 1, worker, 0.5, skipped)])

    content = segment(1, "a", "") + segment(2, "b", "empty") + segment(3, "c", "outside")
    found = [(mark.block, mark.worker, mark.skipped) for mark in MarkDecoder().decode(content)]
    assert found == [(1, "a", ""), (2, "b", "empty"), (3, "c", "outside")]
