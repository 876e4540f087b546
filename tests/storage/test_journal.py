"""Marks outlive a driver, incomplete lines are ignored, and one driver writes at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from volseg.errors import TargetError
from volseg.storage import Journal, Mark, read_marks
from volseg.storage.publish import staged
from volseg.testing.factories import make_volume, read_volume

if TYPE_CHECKING:
    from pathlib import Path


def mark(number: int) -> Mark:
    return Mark(number, f"{number:032x}", 1, "tcp://127.0.0.1:1", 0.5)


def test_marks_are_read_as_written(tmp_path: Path) -> None:
    with Journal(tmp_path / "0" / ".volseg") as journal:
        for number in range(5):
            journal.mark(mark(number))
    assert list(read_marks(tmp_path / "0" / ".volseg")) == [mark(number) for number in range(5)]


@pytest.mark.parametrize("torn", ['{"block":7,"dig', '{"block":7}\n', "\x00\x00\x00\n", "[1,2]\n"])
def test_an_incomplete_line_is_ignored(tmp_path: Path, torn: str) -> None:
    folder = tmp_path / "0" / ".volseg"
    with Journal(folder) as journal:
        journal.mark(mark(1))
    with (folder / "journal-0001.jsonl").open("a") as segment:
        segment.write(torn)
    with Journal(folder) as journal:
        journal.mark(mark(2))
    assert list(read_marks(folder)) == [mark(1), mark(2)]


def test_each_start_writes_one_segment(tmp_path: Path) -> None:
    folder = tmp_path / "0" / ".volseg"
    for _ in range(3):
        with Journal(folder) as journal:
            for number in range(100):
                journal.mark(mark(number))
    assert len(list(folder.iterdir())) == 3 + 1  # the lock


def test_a_second_driver_is_refused_while_the_first_writes(tmp_path: Path) -> None:
    folder = tmp_path / "t.zarr" / "0" / ".volseg"
    with Journal(folder), pytest.raises(TargetError, match="another run is writing into .*t.zarr"):
        Journal(folder)
    Journal(folder).close()


def replace(path: Path) -> None:
    with staged(path, overwrite=True) as new:
        make_volume(new, (2, 16, 16))


def test_a_target_that_is_being_written_is_not_replaced(tmp_path: Path) -> None:
    path = make_volume(tmp_path / "t.zarr", (2, 32, 32))
    with Journal(path / "0" / ".volseg"), pytest.raises(TargetError, match="another run is writing into .*t.zarr"):
        replace(path)
    assert read_volume(path).shape == (2, 32, 32)
    replace(path)
    assert read_volume(path).shape == (2, 16, 16)
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.zarr"]
