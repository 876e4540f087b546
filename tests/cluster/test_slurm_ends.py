"""Runs on a real Slurm that outlive their jobs: walltimes that are too short, and drivers that are cancelled."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

import volseg
from tests.cluster import slurm as daemons
from tests.cluster.test_joined import make_certificates
from tests.cluster.test_slurm import KEYS, ROOT, adapted, slurm, submit, wait_for_end, write_toml, written
from volseg.cluster import connect
from volseg.config import read_cluster
from volseg.prediction.status import run_status
from volseg.storage import journal_folder, read_marks
from volseg.testing.factories import make_volume, read_volume

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(900)]
__all__ = ["slurm"]
GRID = {"device": "cpu", "precision": "float32", "halo": (0, 8, 8), "block": (1, 32, 32), "tile": (1, 32, 32)}
OPTIONS = "--device cpu --precision float32 --halo 0,8,8 --block 1,32,32 --tile 1,32,32"
SLOW_BLOCKS = """
import sys
if any("spawn_main" in word for word in sys.orig_argv):
    import time
    from volseg.prediction import worker
    compute = worker.process_block
    def slow(*arguments, **options):
        time.sleep(1)
        return compute(*arguments, **options)
    worker.process_block = slow
"""
"""Of the processes that a nanny starts; a worker of two slots computes two blocks a second."""


@pytest.fixture(autouse=True)
def slow_workers(slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "path"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SLOW_BLOCKS)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT}")


def same_as_one_driver(folder: Path, model: Path) -> None:
    """The map is complete, has the bytes of a run in one process, and no block was marked twice."""
    found = run_status(folder / "map.zarr")
    assert (found.state, found.failed) == ("complete", ())
    marks = Counter(mark.block for mark in read_marks(journal_folder(folder / "map.zarr")) if mark.block < found.blocks)
    assert (len(marks), set(marks.values())) == (found.blocks, {1})
    arrays = str(folder / "raw.zarr"), str(folder / "one.zarr")
    volseg.predict(*arrays, model=str(model), cluster="serial", **GRID)
    np.testing.assert_array_equal(read_volume(folder / "map.zarr"), read_volume(folder / "one.zarr"))


def wait_for_blocks(target: Path, count: int) -> None:
    until = time.monotonic() + 180
    while written(target) < count:
        assert time.monotonic() < until, f"{written(target)} blocks"
        time.sleep(0.1)


def test_a_workflow_of_a_walltime_that_is_too_short_thrice_ends_with_the_bytes_of_one_driver(
    slurm: None, small_model: Path, tmp_path: Path
) -> None:
    raw = make_volume(tmp_path / "raw.zarr", (12, 128, 192))
    # Slurm looks every 30 s: the signal comes in the second half of the minute.
    script = adapted(tmp_path, raw, small_model, time="00:01:00", signal="B:USR1@1")
    job = submit(script)
    wait_for_end(job, 720)
    log = (tmp_path / f"volseg-{job}.log").read_text()
    assert len(re.findall(r"^Stopped\.", log, re.MULTILINE)) >= 3, log
    assert "of 288 blocks (" in log, log
    assert not re.search("CommClosed|Killed|Traceback|Error|Terminated|TIME LIMIT", log), log
    workers = (tmp_path / f"volseg-workers-{job}.log").read_text()
    assert not re.search("CommClosed|Killed|Traceback", workers), workers
    same_as_one_driver(tmp_path, small_model)


def test_workers_whose_walltime_ends_during_the_run_are_followed_by_others(
    slurm: None, small_model: Path, tmp_path: Path
) -> None:
    make_volume(tmp_path / "raw.zarr", (12, 128, 192))
    write_toml(tmp_path / "slurm.toml", walltime="1min", log_directory=str(tmp_path / "logs"))
    done = predict(tmp_path, small_model, "--cluster slurm.toml")
    assert "288 of 288 blocks" in done
    assert "failed" not in done
    logs = [path.read_text() for path in (tmp_path / "logs").glob("*.err")]
    assert sum("volseg-worker-ends" in log for log in logs) >= 1, logs
    assert not any(re.search("TIME LIMIT|Killed|Traceback", log) for log in logs), logs
    same_as_one_driver(tmp_path, small_model)


def predict(folder: Path, model: Path, *options: str) -> str:
    """Run a driver here, and return what it says."""
    text = f"-m volseg predict raw.zarr map.zarr --model {model} {OPTIONS} {' '.join(options)}"
    done = subprocess.run([sys.executable, *text.split()], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def wait_for_no_jobs() -> None:
    until = time.monotonic() + 90
    while daemons.jobs():
        assert time.monotonic() < until, daemons.jobs()
        time.sleep(0.2)


def submit_driver(folder: Path, model: Path) -> str:
    """Submit a job that is the driver of jobs, and writes its exit code."""
    text = f"predict raw.zarr map.zarr --model {model} {OPTIONS} --cluster slurm.toml --resume"
    script = folder / "driver.sbatch"
    script.write_text(
        "#!/usr/bin/env bash\n#SBATCH --cpus-per-task=1\n#SBATCH --output=driver-%j.log\n"
        f"trap : TERM\n{sys.executable} -m volseg {text} &\necho $! > driver.pid\n"
        'wait "$!"; wait "$!"; echo "code $?"\n'
    )
    return submit(script)


def test_a_cancelled_and_a_killed_driver_are_followed_by_others_with_the_same_bytes(
    slurm: None, small_model: Path, tmp_path: Path
) -> None:
    make_volume(tmp_path / "raw.zarr", (3, 128, 192))
    write_toml(tmp_path / "slurm.toml", log_directory=str(tmp_path / "logs"))
    cancelled = submit_driver(tmp_path, small_model)
    wait_for_blocks(tmp_path / "map.zarr", 8)
    subprocess.run(["scancel", cancelled], check=True)
    wait_for_end(cancelled, 30)
    log = (tmp_path / f"driver-{cancelled}.log").read_text()
    assert log.rstrip().endswith("code 4"), log
    wait_for_no_jobs()
    killed = submit_driver(tmp_path, small_model)
    wait_for_blocks(tmp_path / "map.zarr", written(tmp_path / "map.zarr") + 8)
    os.kill(int((tmp_path / "driver.pid").read_text()), signal.SIGKILL)
    wait_for_end(killed, 30)
    assert (tmp_path / f"driver-{killed}.log").read_text().rstrip().endswith("code 137")
    at, seen = time.monotonic(), written(tmp_path / "map.zarr")
    last = submit_driver(tmp_path, small_model)
    wait_for_blocks(tmp_path / "map.zarr", seen + 4)
    assert time.monotonic() - at < 60
    wait_for_end(last, 240)
    assert "of 72 blocks (" in (tmp_path / f"driver-{last}.log").read_text()
    wait_for_no_jobs()
    same_as_one_driver(tmp_path, small_model)


def test_adapted_jobs_with_certificates_grow_and_none_is_left(slurm: None, small_model: Path, tmp_path: Path) -> None:
    make_volume(tmp_path / "raw.zarr", (3, 128, 192))
    make_certificates(tmp_path / "tls")
    write_toml(tmp_path / "slurm.toml", log_directory=str(tmp_path / "logs"))
    text = f"-m volseg predict raw.zarr map.zarr --model {small_model} {OPTIONS} --cluster slurm.toml --adapt 1,3"
    command = [sys.executable, *text.split(), "--tls", "tls"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as driver:
        counts = [0]
        while driver.poll() is None:
            counts.append(sum(state == "RUNNING" for state in daemons.jobs().values()))
            time.sleep(0.3)
        assert driver.stdout is not None
        said = driver.stdout.read()
    assert driver.returncode == 0, said
    assert "72 of 72 blocks" in said
    assert 2 <= max(counts) <= 3, counts
    wait_for_no_jobs()
    assert any("tls://" in path.read_text() for path in (tmp_path / "logs").glob("*.err"))
    same_as_one_driver(tmp_path, small_model)


def test_each_worker_of_a_job_with_two_gpus_has_its_own(slurm: None, tmp_path: Path) -> None:
    keys = {**KEYS, "cores": 2, "gpus": 2, "log_directory": str(tmp_path)}
    with connect(read_cluster(keys), 1) as executor:
        until = time.monotonic() + 60
        while len(executor.workers) < 2 and time.monotonic() < until:
            executor.refresh(force=True)  # type: ignore[attr-defined]
            time.sleep(0.2)
        assert sorted(executor.run_on_all(os.getenv, "CUDA_VISIBLE_DEVICES")) == ["0", "1"]
