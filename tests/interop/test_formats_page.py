"""The table of formats is complete, and programs of others agree with it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from benchmarks.tables import fill_tables
from tests.interop.__main__ import PAGE, exchange, install, wrong
from tests.interop.files import Check, File
from tests.interop.table import FORMATS, formats_table
from volseg.storage.readers import READERS
from volseg.storage.writers import FORMATS as WRITERS

if TYPE_CHECKING:
    from pathlib import Path


def test_each_reader_and_writer_has_a_row() -> None:
    assert {row.reader for row in FORMATS} == set(READERS.builtins)
    assert {row.writer for row in FORMATS} - {""} == set(WRITERS.builtins)
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    shown = {(cells[0].removeprefix("| "), cells[1], cells[2]) for cells in rows}
    assert {(row.title, f"`{row.reader}`", f"`{row.writer}`" if row.writer else "-") for row in FORMATS} <= shown


def test_a_type_is_listed_only_if_another_program_read_its_voxels() -> None:
    files = [File("n5", "a", dtype, "volseg") for dtype in ("uint8", "uint16", "int16")]
    checks = [
        Check(files[0], "one 1", voxels=True, size=True),
        Check(files[1], "one 1", fault="it swaps bytes"),
        Check(files[2], "one 1", voxels=True, size=False),
        Check(files[2], "two 1", error="no such type"),
    ]
    table = formats_table(checks, [])
    assert "| N5 | `n5` | `n5` | uint8 | size kept | one 1 | - |" in table
    assert "- one 1, N5, uint16: it swaps bytes" in table
    assert "- two 1, N5, int16: not read (`no such type`)" in table
    assert [line.partition(":")[0] for line in wrong(checks, [])] == ["one 1"]
    assert wrong([], checks[3:])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_programs_of_others_read_what_volseg_writes_and_write_what_it_reads(tmp_path: Path) -> None:
    try:
        python = install(tmp_path / "environment")
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.split())
        pytest.skip(f"the programs of tests/interop/requirements.txt cannot be installed: {reason}")
    by_others, by_volseg = exchange(python, tmp_path / "run")
    assert wrong(by_others, by_volseg) == []
    page = PAGE.read_text()
    assert fill_tables(page, {"formats": formats_table(by_others, by_volseg)}) == page
