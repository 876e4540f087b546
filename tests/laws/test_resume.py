"""Law 6: a run killed anywhere and resumed gives the bytes of one never killed; another run's target is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from click.testing import CliRunner

import volseg
import volseg.prediction.resolve
from volseg.cli.main import main
from volseg.errors import ResumeError, TargetError
from volseg.inference.hardware import instruction_set
from volseg.prediction.worker import RunRef, compute_block
from volseg.storage import Mark, VolumeRef, open_target, read_marks, read_record
from volseg.storage.target import Target, voxel_digest
from volseg.testing.doubles import NoteRecorder
from volseg.testing.factories import blobs, create_target_like, make_model, make_volume
from volseg.testing.journals import keep_marks

if TYPE_CHECKING:
    from collections.abc import Callable

    from volseg.blocks import Box

BLOCK = "1,32,32"
BLOCKS = 6 * 3 * 3


def files(target: Path) -> dict[str, bytes]:
    return {str(p.relative_to(target)): p.read_bytes() for p in sorted((target / "0" / "c").rglob("*")) if p.is_file()}


def marks_of(target: Path) -> list[Mark]:
    return list(read_marks(target / "0" / ".volseg"))


def start(raw: Path, target: Path, model: Path, *more: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "volseg",
        "predict",
        str(raw),
        str(target),
        "--model",
        str(model),
        "--block",
        BLOCK,
    ]
    return subprocess.Popen(
        [*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for_marks(target: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if any((target / "0" / ".volseg").glob("*.marks")) and len(marks_of(target)) >= count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"no {count} marks came")


def resumed(raw: Path, target: Path, model: Path, *more: str) -> str:
    """What `--resume` says, which ends well."""
    command = ["predict", str(raw), str(target), "--model", str(model), "--block", BLOCK, "--cluster", "serial"]
    done = CliRunner().invoke(main, [*command, "--resume", *more], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_volume(tmp_path_factory.mktemp("raw") / "raw.zarr", (6, 70, 90))


@pytest.fixture(scope="module")
def never_killed(raw: Path, small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("whole") / "whole.zarr"
    volseg.predict(str(raw), str(target), model=str(small_model), block=(1, 32, 32), cluster="serial")
    return target


@pytest.mark.parametrize(
    ("cluster", "after"),
    [("serial", 0), *(pytest.param(*each, marks=pytest.mark.slow) for each in (("serial", 7), ("local", 5)))],
)
def test_a_run_killed_and_resumed_gives_the_bytes_of_one_never_killed(
    raw: Path, small_model: Path, tmp_path: Path, never_killed: Path, cluster: str, after: int
) -> None:
    target = tmp_path / "killed.zarr"
    # The frozen record of the run that was never killed: same threads, same statistics.
    create_target_like(target, never_killed)
    process = start(raw, target, small_model, "--cluster", cluster, "--resume")
    wait_for_marks(target, after, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = len(marks_of(target))
    assert after <= before < BLOCKS
    # What a kill in mid-write leaves: a shard cut short that was not marked, and half a line in the journal.
    marked = {mark.block for mark in marks_of(target)}
    victim = next(number for number in range(BLOCKS) if number not in marked)
    box = read_record(target).grid.box(victim)
    shard = target / "0" / "c" / "/".join(str(a // b) for a, b in zip(box.start, (1, 32, 32), strict=True))
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.write_bytes(b"half a shard")
    with next(iter((target / "0" / ".volseg").glob("*.marks"))).open("ab") as segment:
        segment.write(b"\x02\x00\x01")
    summary = json.loads(resumed(raw, target, small_model, "--json"))
    assert (summary["already_done"], summary["done"]) == (before, BLOCKS - before)
    assert files(target) == files(never_killed)


@pytest.mark.slow
def test_ctrl_c_leaves_a_target_that_resume_finishes(small_model: Path, tmp_path: Path) -> None:
    # So many blocks that they are not done before the signal comes, on a machine that has other work.
    target, raw = tmp_path / "stopped.zarr", make_volume(tmp_path / "large.zarr", (4, 160, 192))
    process = start(raw, target, small_model, "--cluster", "local", "--workers", "2", "--precision", "float32")
    wait_for_marks(target, 1, process)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # a terminal's reach workers too
        os.killpg(process.pid, number)
    code, _, err = finish(process)
    assert code == 4
    assert "rerun the command with --resume" in err
    assert "Traceback" not in err
    resumed(raw, target, small_model)
    assert {mark.block for mark in marks_of(target)} == set(range(4 * 5 * 6))
    assert "nothing was left to do" in resumed(raw, target, small_model)


def test_a_batch_systems_sigterm_is_ctrl_c(raw: Path, small_model: Path, tmp_path: Path) -> None:
    process = start(raw, tmp_path / "t.zarr", small_model, "--cluster", "serial")
    wait_for_marks(tmp_path / "t.zarr", 2, process)
    process.terminate()
    code, _, err = finish(process)
    assert (code, "with --resume" in err) == (4, True)


def test_each_mark_carries_the_digest_of_the_voxels_written(never_killed: Path) -> None:
    target, grid = open_target(never_killed), read_record(never_killed).grid
    marks = marks_of(never_killed)
    assert sorted(mark.block for mark in marks) == list(range(BLOCKS))
    for mark in marks:
        assert mark.digest == voxel_digest(target.read(grid.box(mark.block)))
        assert (mark.attempt, mark.worker) == (1, f"this process, cpu {instruction_set()}, float32")
        assert mark.seconds > 0


def test_a_block_whose_data_was_not_written_has_no_mark(
    raw: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Target.write

    def full(self: Target, box: Box, *rest: Any) -> Any:
        if box.start[0] == 4:
            raise TargetError(f"cannot write {box}: no space left on device")
        return write(self, box, *rest)

    monkeypatch.setattr(Target, "write", full)
    where: Any = {"model": str(small_model), "block": (1, 32, 32), "cluster": "serial"}
    summary = volseg.predict(str(raw), str(tmp_path / "t.zarr"), **where)
    grid = read_record(tmp_path / "t.zarr").grid
    unwritten = {number for number in grid.numbers() if grid.box(number).start[0] == 4}
    assert set(summary.failed) == unwritten
    assert {mark.block for mark in marks_of(tmp_path / "t.zarr")} == set(grid.numbers()) - unwritten
    monkeypatch.undo()
    summary = volseg.predict(str(raw), str(tmp_path / "t.zarr"), **where, resume=True)
    assert (summary.done, summary.failed) == (len(unwritten), {})


def test_marks_are_no_file_a_block(never_killed: Path) -> None:
    names = sorted(p.name for p in (never_killed / "0" / ".volseg").iterdir())
    assert [name.partition("-")[0] for name in names] == ["chunks", "halo", "journal", "lock", "statistics", "usage"]


def test_a_resume_of_nothing_starts(raw: Path, small_model: Path, tmp_path: Path) -> None:
    summary = volseg.predict(
        str(raw), str(tmp_path / "new.zarr"), model=str(small_model), cluster="serial", resume=True
    )
    assert summary.done == summary.blocks > 0


@pytest.fixture(scope="module")
def begun(raw: Path, small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of a run, whose target is there."""
    options: dict[str, Any] = {
        "source": str(raw), "target": str(tmp_path_factory.mktemp("begun") / "t.zarr"), "model": str(small_model),
        "block": (1, 32, 32), "precision": "bfloat16", "cluster": "serial",
    }  # fmt: skip
    volseg.predict(**options)
    return options


def other_weights(options: dict[str, Any], folder: Path) -> None:
    options["model"] = str(make_model(folder / "other.safetensors", seed=9))


def other_source(options: dict[str, Any], folder: Path) -> None:
    options["source"] = str(make_volume(folder / "other.zarr", (6, 70, 90), voxels=blobs((6, 70, 90), seed=4)))


def setting(**changed: Any) -> Callable[[dict[str, Any], Path], None]:
    return lambda options, folder: options.update(changed)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_weights, "another model"),
        (other_source, "another source"),
        (setting(block=(2, 32, 32)), "another block"),
        (setting(halo=(0, 8, 8)), "another halo"),
        (setting(precision="float32"), "another precision"),
        (setting(roi="0:2,:,:"), "another region"),
        (setting(chunk=(1, 16, 16)), "another chunk"),
    ],
)
def test_a_resume_of_another_run_is_refused(
    begun: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, Any], Path], None], named: str
) -> None:
    options, target = dict(begun), Path(begun["target"])
    before = files(target)
    change(options, tmp_path)
    with pytest.raises(ResumeError, match=f"was started with {named}.*--overwrite") as caught:
        volseg.predict(**options, resume=True)
    paths = [inputs[name] for inputs in (begun, options) for name in ("source", "model") if name in named]
    assert all(path in str(caught.value) for path in paths)
    assert files(target) == before


def test_options_that_are_not_given_come_from_the_record(raw: Path, small_model: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": str(small_model), "cluster": "serial"}
    shape: dict[str, Any] = {"block": (1, 32, 32), "halo": (0, 8, 8), "roi": "0:2,:,:", "chunk": (1, 16, 16)}
    volseg.predict(str(raw), str(tmp_path / "t.zarr"), **options, **shape, precision="float32")
    summary = volseg.predict(str(raw), str(tmp_path / "t.zarr"), **options, resume=True)
    assert (summary.done, summary.already_done) == (0, 18)


@pytest.mark.parametrize("number", ["format", "numerics"])
def test_a_run_of_another_format_or_numerics_is_not_resumed(
    raw: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    options: dict[str, Any] = {"model": str(small_model), "cluster": "serial", "block": (1, 32, 32)}
    volseg.predict(str(raw), str(tmp_path / "t.zarr"), **options)
    current = getattr(volseg.prediction.resolve, number.upper())
    monkeypatch.setattr(volseg.prediction.resolve, number.upper(), 99)
    with pytest.raises(ResumeError, match=rf"{volseg.__version__} with {number} {current}.*{number} 99.*--overwrite"):
        volseg.predict(str(raw), str(tmp_path / "t.zarr"), **options, resume=True)


def test_another_version_of_volseg_or_torch_may_resume_and_the_latter_is_said(
    raw: Path, small_model: Path, tmp_path: Path
) -> None:
    target, notes = tmp_path / "t.zarr", NoteRecorder()
    options: dict[str, Any] = {"model": str(small_model), "cluster": "serial", "block": (1, 32, 32)}
    volseg.predict(str(raw), str(target), **options)
    record = json.loads((target / "zarr.json").read_text())
    earlier = read_record(target).model_copy(update={"version": "0.0.1", "torch": "1.0"})
    record["attributes"]["volseg"] = earlier.to_attributes()
    (target / "zarr.json").write_text(json.dumps(record))
    keep_marks(target, lambda mark: True)  # in a journal that names no run
    summary = volseg.predict(str(raw), str(target), **options, resume=True, progress=notes)
    assert summary.already_done == summary.blocks
    assert any("torch 1.0" in line and torch.__version__ in line for line in notes.lines)


def test_the_source_may_have_moved(small_model: Path, tmp_path: Path) -> None:
    raw = make_volume(tmp_path / "raw.zarr", (2, 70, 90))
    options: dict[str, Any] = {"model": str(small_model), "cluster": "serial", "block": (1, 32, 32)}
    volseg.predict(str(raw), str(tmp_path / "t.zarr"), **options)
    assert keep_marks(tmp_path / "t.zarr", lambda mark: mark.block < 10) == 10
    moved = raw.rename(tmp_path / "moved.zarr")
    summary = volseg.predict(str(moved), str(tmp_path / "t.zarr"), **options, resume=True)
    assert (summary.already_done, summary.done, summary.failed) == (10, 8, {})


def test_a_block_that_outlives_its_run_leaves_the_next_one_alone(raw: Path, small_model: Path, tmp_path: Path) -> None:
    """Dask cannot stop a block that a worker is at, when a run is stopped and begun anew with another model."""
    target = tmp_path / "p.zarr"
    options: dict[str, Any] = {"block": (1, 32, 32), "roi": "0:1,:,:", "cluster": "serial"}
    volseg.predict(str(raw), str(target), model=str(small_model), **options)
    reference = RunRef(str(target), read_record(target).digest, VolumeRef(str(raw)), (str(small_model),))
    compute_block(0, reference)
    other = make_model(tmp_path / "other.safetensors", seed=9)
    volseg.predict(str(raw), str(target), model=str(other), overwrite=True, **options)
    before = files(target)
    with pytest.raises(TargetError, match="holds another run"):
        compute_block(0, reference)
    assert files(target) == before
