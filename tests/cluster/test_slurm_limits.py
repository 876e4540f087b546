"""Limits of time on a real Slurm, which counts in minutes: runs that need several jobs, and drivers that are ended."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

import volseg
from tests.cluster import slurm as daemons
from tests.cluster.test_slurm import ROOT, adapted, slurm, submit, wait_for_end, write_toml, written
from volseg.prediction.status import run_status
from volseg.storage import journal_folder, read_marks
from volseg.testing.factories import make_volume, read_volume

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1800)]
__all__ = ["slurm"]
NOISE = "CommClosed|Killed|Traceback|Terminated|CANCELLED|DUE TO TIME LIMIT"
OPTIONS = ("--block", "1,32,32", "--halo", "0,8,8", "--tile", "1,32,32", "--precision", "float32", "--device", "cpu")
PATCH = """
import sys
if any("spawn_main" in word for word in sys.orig_argv):  # a nanny's worker
    import time
    import volseg.prediction.worker as worker
    process = worker.process_block
    def slow(*arguments, **named):
        time.sleep({seconds})
        return process(*arguments, **named)
    worker.process_block = slow
"""


@pytest.fixture
def slow_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Workers of jobs wait a second in each block; the folder is on their path."""
    folder = tmp_path / "patch"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PATCH.format(seconds=1.0))
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT}")
    return folder


def assert_as_of_one_driver(folder: Path, raw: Path, model: Path, blocks: int) -> None:
    """The map is that of an undisturbed run, and no block was done or tried twice."""
    found = run_status(folder / "map.zarr")
    assert (found.state, found.blocks, found.retried, found.failed) == ("complete", blocks, 0, ())
    marks = Counter(mark.block for mark in read_marks(journal_folder(folder / "map.zarr")) if mark.block < blocks)
    assert (len(marks), set(marks.values())) == (blocks, {1})
    volseg.predict(
        str(raw), str(folder / "one.zarr"), model=str(model), cluster="serial", device="cpu", precision="float32",
        halo=(0, 8, 8), block=(1, 32, 32), tile=(1, 32, 32),
    )  # fmt: skip
    np.testing.assert_array_equal(read_volume(folder / "map.zarr"), read_volume(folder / "one.zarr"))


def test_a_workflow_whose_walltime_is_too_short_requeues_itself_to_the_end(
    slurm: None, small_model: Path, slow_blocks: Path, tmp_path: Path
) -> None:
    raw = make_volume(tmp_path / "raw.zarr", (9, 128, 192))  # 216 blocks, two a second
    script = adapted(tmp_path, raw, small_model, time="00:01:00", signal="B:USR1@30")
    job = submit(script)
    wait_for_end(job, 1500)
    log = (tmp_path / f"volseg-{job}.log").read_text()
    assert log.count("Stopped. To finish") >= 3, log
    assert "of 216 blocks" in log, log
    assert not re.search(NOISE, log), log
    workers = (tmp_path / f"volseg-workers-{job}.log").read_text()
    assert not re.search("CommClosed|Killed|Traceback|TIME LIMIT", workers), workers
    assert_as_of_one_driver(tmp_path, raw, small_model, 216)


def test_workers_whose_jobs_end_are_replaced_and_begin_no_block_that_cannot_end(
    slurm: None, small_model: Path, slow_blocks: Path, tmp_path: Path
) -> None:
    raw = make_volume(tmp_path / "raw.zarr", (12, 128, 192))  # 288 blocks, four a second
    toml = write_toml(
        tmp_path / "slurm.toml", walltime="1min", log_directory=str(tmp_path / "logs"), python=sys.executable
    )
    command = [sys.executable, "-m", "volseg", "predict", str(raw), "map.zarr", "--model", str(small_model), *OPTIONS]
    done = subprocess.run(
        [*command, "--cluster", str(toml), "--workers", "2"], cwd=tmp_path, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "288 of 288 blocks" in done.stdout
    assert len(list((tmp_path / "logs").glob("*.err"))) >= 4  # jobs, of which each does a part
    assert_as_of_one_driver(tmp_path, raw, small_model, 288)


def driver_job(folder: Path, raw: Path, model: Path, toml: Path) -> Path:
    """A job that holds nothing but the driver."""
    words = " ".join([sys.executable, "-m volseg predict", str(raw), "map.zarr --model", str(model), *OPTIONS])
    script = folder / "driver.sbatch"
    script.write_text(
        f"#!/bin/bash\n#SBATCH --time=10\n#SBATCH --mem=1G\n#SBATCH --output=driver-%j.log\ncd {folder}\n"
        f"exec {words} --cluster {toml} --workers 1 --resume\n"
    )
    return script


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_a_driver_whose_job_is_cancelled_is_followed_by_another_within_a_minute(
    slurm: None, small_model: Path, slow_blocks: Path, tmp_path: Path, signal: str
) -> None:
    raw = make_volume(tmp_path / "raw.zarr", (3, 128, 192))  # 72 blocks, two a second
    toml = write_toml(tmp_path / "slurm.toml", log_directory=str(tmp_path / "logs"), python=sys.executable)
    script, target = driver_job(tmp_path, raw, small_model, toml), tmp_path / "map.zarr"
    first = submit(script)
    until = time.monotonic() + 180
    while written(target) < 5:
        assert time.monotonic() < until, (tmp_path / f"driver-{first}.log").read_text()
        time.sleep(0.1)
    command = ["scancel", first] if signal == "TERM" else ["scancel", "--full", "--signal=KILL", first]
    subprocess.run(command, check=True)
    while first in daemons.jobs():
        time.sleep(0.1)
    second, done, began = submit(script), run_status(target).done, time.monotonic()
    while run_status(target).done <= done:
        assert time.monotonic() < began + 60, (tmp_path / f"driver-{second}.log").read_text()
        time.sleep(0.2)
    wait_for_end(second, 300)
    log = (tmp_path / f"driver-{first}.log").read_text()
    assert ("Stopped. To finish" in log) == (signal == "TERM"), log
    assert "of 72 blocks" in (tmp_path / f"driver-{second}.log").read_text()
    found = run_status(target)
    assert (found.state, found.failed) == ("complete", ())
    until = time.monotonic() + 90
    while daemons.jobs() and time.monotonic() < until:
        time.sleep(0.5)
    assert daemons.jobs() == {}  # not even those of the driver that was killed
