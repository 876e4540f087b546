"""A verification reads what is marked, says what is not of the run, and goes on after an interruption."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import volseg
from volseg.blocks import Box, PyramidGrid
from volseg.cluster import SerialExecutor
from volseg.errors import ConfigError, SourceError, TargetError
from volseg.prediction.verification import shards, survey
from volseg.prediction.verification.report import EXAMPLES, Fault, Faults, NullVerifyProgress
from volseg.storage import FORMAT, MARK_ENTRY, Journal, Mark, MarkTable, open_target, read_record
from volseg.storage.marks import digest_of
from volseg.testing.doubles import NoteRecorder
from volseg.testing.journals import keep_marks
from volseg.testing.targets import make_target, noise_record

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.cluster.dask_executor import DaskExecutor


class Recorder(NoteRecorder, NullVerifyProgress):
    """Records the notes that a user would see."""


def verified(target: Path, **options: Any) -> volseg.VerifyReport:
    return volseg.verify(str(target), cluster="serial", **options)


def test_the_cluster_finds_the_same(target: Path, two_workers: DaskExecutor) -> None:
    (target / "0" / "c" / "1" / "0" / "0").unlink()
    (target / "0" / "c" / "2" / "0" / "2").write_bytes(b"")
    found = [survey.survey(target, read_record(target), running=False) for _ in range(2)]
    for one, executor in zip(found, (SerialExecutor(), two_workers), strict=True):
        survey.check_shards(target, read_record(target), one, executor, NullVerifyProgress(), deep=True)
    assert list(found[0].again) == list(found[1].again) == [9, 20]
    assert found[0].damaged == found[1].damaged


def test_a_shard_that_cannot_be_read_is_named(target: Path) -> None:
    path = target / "0" / "c" / "0" / "0" / "1"
    path.unlink()
    path.mkdir()
    (fault,) = verified(target).damaged["unreadable"].examples
    assert (fault.path, fault.block, fault.reason) == ("0/c/0/0/1", 1, "Is a directory")


def test_shards_outside_the_region_are_damage(tmp_path: Path) -> None:
    region = Box((0, 16, 32), (1, 32, 64))
    target = make_target(tmp_path / "t.zarr", noise_record((2, 40, 70), (1, 16, 32), region=region))
    assert verified(target).sound
    stale = ["0/c/0/1/0", "0/c/0/1/2", "0/c/0/2/1", "0/c/1/1/1"]
    for name in stale:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(b"stale")
    report = verified(target)
    assert sorted(fault.path for fault in report.damaged["stale"].examples) == stale
    assert verified(target, repair=True).sound
    assert not any((target / name).exists() for name in stale)


def test_strays_are_named_and_are_no_damage(target: Path) -> None:
    for name in (
        "0/c/0/0/0.bak",
        "0/c/0/00",
        "0/c/0/0/99",
        "0/c/7/0/0",
        "0/.zarray",
        "notes.txt",
        "0/.volseg/My notes",
    ):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(b"")
    (target / "0" / ".partial" / "ab").mkdir(parents=True)
    (target / "0" / ".volseg" / "statistics-0.7.partial").write_bytes(b"")
    (target / ".DS_Store").write_bytes(b"")
    report = verified(target)
    assert report.sound
    assert report.complete
    strays = {fault.path for fault in report.warnings["stray"].examples}
    assert strays == {
        "0/c/0/0/0.bak",
        "0/c/0/00",
        "0/c/0/0/99",
        "0/c/7",
        "0/.zarray",
        "notes.txt",
        "0/.volseg/My notes",
    }
    half = {fault.path for fault in report.warnings["half_written"].examples}
    assert half == {"0/.partial", "0/.volseg/statistics-0.7.partial"}


def test_blocks_that_are_not_done_are_no_damage_and_not_computed_by_a_repair(tmp_path: Path) -> None:
    target = make_target(tmp_path / "t.zarr", noise_record(), unmarked={2, 3})
    shutil.copy(target / "0" / "c" / "0" / "0" / "0", target / "0" / "c" / "0" / "0" / "2")
    for repair in (False, True):
        report = verified(target, repair=repair)
        assert report.sound
        assert not report.complete
        assert (report.blocks - report.done, report.unmarked) == (2, 1)


def test_deep_finds_shards_that_hold_other_voxels_than_were_computed(target: Path) -> None:
    """Bytes that were damaged before they were hashed."""
    volume, garbage = open_target(target), b"no shard"
    box = read_record(target).grid.box(0)
    shard, other = (path.read_bytes() for path in (*volume.shard_files(box), target / "0" / "c" / "0" / "0" / "1"))
    with Journal(volume.journal) as journal:
        for number, content in ((0, other), (1, garbage)):
            volume.shard_files(read_record(target).grid.box(number))[0].write_bytes(content)
            journal.mark(Mark(number, digest_of(shard), 1, "here", 0.1, "", len(content), digest_of(content)))
    assert verified(target, seams=False).sound
    with pytest.raises(SourceError, match="cannot read"):  # where it looks for seams
        verified(target)
    report = verified(target, deep=True)
    found = {kind: [fault.block for fault in group.examples] for kind, group in report.damaged.items()}
    assert found == {"voxels": [0], "unreadable": [1]}


def test_more_marks_than_the_mask_has_blocks_are_damage(tmp_path: Path) -> None:
    target = make_target(tmp_path / "t.zarr", noise_record(masked=17))
    assert "18 blocks are marked, of 17" in verified(target).damaged["journal"].examples[0].reason


def test_a_damaged_mark_that_another_replaces_is_a_warning(target: Path) -> None:
    first, second = sorted((target / "0" / ".volseg").glob("*.marks"))
    content = bytearray(second.read_bytes())
    content[-9] ^= 1
    (target / "0" / ".volseg" / "journal-0000.marks").write_bytes(content)
    report = verified(target)
    assert report.sound
    assert report.complete
    assert report.warnings["journal"].count == 1
    assert first.exists()


def test_blocks_that_read_missing_chunks_without_a_census_are_not_complete(tmp_path: Path) -> None:
    record = noise_record()
    source = record.source.model_copy(update={"chunk_census": ""})
    target = make_target(tmp_path / "t.zarr", record.model_copy(update={"source": source}))
    assert verified(target).complete
    with Journal(target / "0" / ".volseg") as journal:
        journal.mark(Mark(1, "", 1, "here", 0.1, "empty", absent=2))
    report = verified(target)
    assert (report.lacking, report.complete) == (1, False)


def test_a_run_that_is_writing_is_said_and_its_files_are_no_strays(target: Path) -> None:
    notes = Recorder()
    with Journal(target / "0" / ".volseg"):
        (target / "0" / ".partial").mkdir()
        report = verified(target, progress=notes)
        assert report.running
        assert report.sound
        assert not report.warnings
        with pytest.raises(TargetError, match="another run is writing into .*t.zarr"):
            verified(target, repair=True)
    assert any("a run is writing into" in line for line in notes.lines)
    assert not verified(target).running


def test_a_target_that_vanishes_is_an_error_and_no_damage(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = shards._file_digest

    def vanishing(path: Path, buffer: memoryview) -> tuple[int, str]:
        if target.exists():
            target.rename(target.with_name("gone"))
        return digest(path, buffer)

    monkeypatch.setattr(shards, "_file_digest", vanishing)
    with pytest.raises(TargetError, match="has no run record"):
        verified(target)


def test_a_stopped_verification_goes_on_and_leaves_no_file(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "_RANGE_BLOCKS", 3)
    monkeypatch.setattr(survey, "ranges", lambda grid, table: [(n, n + 3) for n in range(0, grid.count, 3)])
    check, seen = shards.check_range, list[int]()

    def stopping(blocks: Any, reference: Any) -> Any:
        seen.append(blocks.first)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return check(blocks, reference)

    (target / "0" / "c" / "0" / "0" / "1").unlink()
    monkeypatch.setattr(survey, "check_range", stopping)
    with pytest.raises(KeyboardInterrupt):
        verified(target)
    assert seen == [0, 3, 6, 9]
    report = verified(target, resume=True)
    assert seen[4:] == [0, *range(9, report.blocks, 3)]  # what was damaged is read again
    assert (report.checked_before, report.checked) == (6, report.blocks - 6)
    assert report.damaged["missing"].count == 1
    assert not list((target / "0" / ".volseg").glob("verify-*"))


def test_marks_of_another_state_of_the_journal_do_not_count(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, sound: Any, **__: Any) -> None:
        sound.add(0, read_record(target).grid.count)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("volseg.prediction.verification.verify.check_shards", stopped)
        with pytest.raises(KeyboardInterrupt):
            verified(target)
    with Journal(target / "0" / ".volseg"):
        pass
    assert verified(target, resume=True).checked_before == 0


def test_ranges_are_rows_or_parts_of_one_and_cover_all_blocks_once() -> None:
    grid = noise_record((3, 64, 96), (1, 16, 16)).grid
    table = MarkTable(np.zeros(grid.count, MARK_ENTRY), 0)
    table.entries["state"], table.entries["bytes"] = 1, 10
    nx = grid.counts[2]
    for size, blocks in ((1, 100), (25, 100), (130, 100), (10_000, 4), (10_000, 13), (10_000, 1000)):
        parts = list(survey.ranges(PyramidGrid(grid), table, size, blocks))
        assert [n for first, stop in parts for n in range(first, stop)] == list(grid.numbers())
        for first, stop in parts:
            assert stop - first <= blocks
            assert first // nx == (stop - 1) // nx or first % nx == stop % nx == 0
            assert 10 * (stop - first) <= size + 10


def test_examples_are_few_and_counts_are_not() -> None:
    faults, more = Faults(), Faults()
    faults.note("missing", *(Fault(str(n)) for n in range(EXAMPLES - 1)))
    more.note("missing", Fault("a"), Fault("b"))
    faults.merge(more)
    assert (faults["missing"].count, len(faults["missing"].examples)) == (EXAMPLES + 1, EXAMPLES)


def test_what_is_no_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="has no run record; name the target"):
        verified(tmp_path / "nothing.zarr")
    with pytest.raises(ConfigError, match="--source needs --repair"):
        verified(tmp_path, source="raw.zarr")


def test_a_record_of_another_format_is_not_verified(target: Path) -> None:
    document = json.loads((target / "zarr.json").read_text())
    record = read_record(target).model_copy(update={"format": 99})
    document["attributes"]["volseg"] = record.to_attributes()
    (target / "zarr.json").write_text(json.dumps(document))
    keep_marks(target, lambda mark: True)  # in a journal that names no run
    with pytest.raises(TargetError, match="with format 99, and this is volseg"):
        verified(target)


def test_a_damaged_record_is_damage_and_not_repaired(target: Path) -> None:
    text = (target / "zarr.json").read_text()
    for damaged in (
        text.replace('"threads": 1', '"threads": 2'),
        text.replace(f'"format": {FORMAT}', f'"format": {FORMAT - 1}'),
        text[:99],
    ):
        (target / "zarr.json").write_text(damaged)
        report = verified(target)
        assert list(report.damaged) == ["record"]
        with pytest.raises(TargetError, match=r"restore .*zarr.json from a copy"):
            verified(target, repair=True)
