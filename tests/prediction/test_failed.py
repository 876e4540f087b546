"""A target or a source that goes away in mid-run ends the run; blocks given up leave their reasons."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from volseg.cli.main import main
from volseg.config import PredictConfig, validate
from volseg.errors import SourceError, SourceLostError, TargetLostError
from volseg.prediction import worker
from volseg.prediction.prepare import prepare
from volseg.prediction.run import execute
from volseg.prediction.status import run_status
from volseg.storage import FailedBlock, FailureLog, read_failures
from volseg.storage.lock import locked
from volseg.testing.doubles import ActAfter, NoteRecorder
from volseg.testing.factories import make_model, make_volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from volseg.pipeline import BlockReport
    from volseg.prediction.summary import Summary

SHAPE = (8, 32, 32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "m.safetensors")
    make_volume(tmp_path / "raw.zarr", SHAPE, chunk=(1, 32, 32))
    return tmp_path


def run(progress: NoteRecorder | None = None, **options: Any) -> Summary:
    options |= {"source": "raw.zarr", "target": "out.zarr", "model": "m.safetensors", "block": (1, 32, 32)}
    options |= {"halo": (0, 16, 16), "cluster": "serial", "precision": "float32"}
    return execute(*prepare(validate(PredictConfig, options, "predict")), progress or NoteRecorder())


def test_a_target_that_vanishes_ends_the_run_in_one_line(folder: Path) -> None:
    with pytest.raises(TargetLostError, match=r"out\.zarr is gone"):
        run(ActAfter(3, lambda: shutil.rmtree(folder / "out.zarr")))
    assert not (folder / "out.zarr").exists()


def test_a_target_that_vanishes_after_the_last_block_is_no_success(folder: Path) -> None:
    with pytest.raises(TargetLostError, match=r"out\.zarr is gone"):
        run(ActAfter(8, lambda: shutil.rmtree(folder / "out.zarr")))


def test_a_target_that_another_run_replaces_ends_the_run(folder: Path) -> None:
    def replace() -> None:
        (folder / "out.zarr").rename(folder / "old.zarr")
        run(ActAfter(0, int), max_failed=0)

    with pytest.raises(TargetLostError, match=r"out\.zarr was replaced by another run"):
        run(ActAfter(3, replace))
    assert run_status(folder / "out.zarr").state == "complete"


def test_a_source_that_vanishes_ends_the_run_and_resume_goes_on(folder: Path) -> None:
    with pytest.raises(SourceLostError, match=r"raw\.zarr/0 is gone"):
        run(ActAfter(3, lambda: (folder / "raw.zarr").rename(folder / "elsewhere")))
    assert run_status(folder / "out.zarr").done == 3
    (folder / "elsewhere").rename(folder / "raw.zarr")
    assert run(resume=True).done == 5


def failing(numbers: tuple[int, ...]) -> Callable[..., BlockReport]:
    compute = worker.compute_block

    def maybe(number: int, reference: worker.RunRef) -> BlockReport:
        if number in numbers:
            raise (SourceError if number % 2 else ValueError)(f"a reason at block {number}")
        return compute(number, reference)

    return maybe


def test_blocks_given_up_leave_reason_and_traceback_until_they_are_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volseg.prediction.run.compute_block", failing((2, 5, 7)))
    assert sorted(run().failed) == [2, 5, 7]
    status = CliRunner().invoke(main, ["status", "out.zarr", "--traceback"], catch_exceptions=False)
    assert status.exit_code == 3
    assert "stopped, 5 of 8 blocks done" in status.output
    assert "failed (read or write failed): blocks 5, 7: a reason at the block" in status.output
    assert "failed (unexpected error): block 2: ValueError: a reason" in status.output
    assert "in maybe" in status.output
    assert "3 blocks left: repeat the run's command with --resume" in status.output
    found = json.loads(CliRunner().invoke(main, ["status", "out.zarr", "--json"]).stdout)
    assert [(block["block"], block["attempts"]) for block in found["failed"]] == [(2, 3), (5, 4), (7, 4)]
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert run(resume=True).done == 3
    status = CliRunner().invoke(main, ["status", "out.zarr"], catch_exceptions=False)
    assert (status.exit_code, "complete, 8 of 8 blocks done" in status.output) == (0, True)
    assert "failed" not in status.output


def test_a_run_that_exceeds_its_budget_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volseg.prediction.run.compute_block", failing((2, 5)))
    command = "predict raw.zarr out.zarr --model m.safetensors --block 1,32,32 --halo 0,16,16 --cluster serial"
    ended = CliRunner().invoke(main, [*command.split(), "--max-failed", "1"], catch_exceptions=False)
    assert ended.exit_code == 1
    assert "2 blocks failed, more than the 1 of --max-failed" in ended.stderr.splitlines()[-1]


def test_status_says_whether_a_run_goes_on(folder: Path) -> None:
    states: list[str] = []
    run(ActAfter(3, lambda: states.append(run_status(folder / "out.zarr").state)))
    assert [*states, run_status(folder / "out.zarr").state] == ["running", "complete"]
    with locked(folder / "out.zarr" / "0" / ".volseg" / "lock", "held"):
        assert run_status(folder / "out.zarr").state == "running"


def test_damaged_lines_of_the_log_are_left_out(tmp_path: Path) -> None:
    first, second = (FailedBlock(n, "a kind", "a reason", 3, "here", "now", "line 1\nline 2") for n in (4, 9))
    FailureLog(tmp_path).add(first)
    FailureLog(tmp_path).add(second)
    for content in (b'{"block": "4"}\n', b"\xff\xfe\n", b"[1]\n", b'{"block": 4, "kind": "cut'):
        with (tmp_path / "failures-0001.jsonl").open("ab") as file:
            file.write(content)
    assert read_failures(tmp_path) == {4: first, 9: second}


def test_credentials_stay_out_of_the_log(tmp_path: Path) -> None:
    secret = "https://me:pw@host/raw?token=abc"
    FailureLog(tmp_path).add(FailedBlock(1, "a kind", secret, 1, "here", "now", secret))
    content = (tmp_path / "failures-0001.jsonl").read_text()
    assert "pw" not in content
    assert "abc" not in content
