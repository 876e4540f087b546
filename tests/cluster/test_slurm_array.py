"""The workflow of a job array on a real Slurm: its tasks write one map without a scheduler."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import volseg
from tests.cluster import slurm as daemons
from tests.cluster.test_slurm import ROOT, slurm, submit
from volseg.prediction.status import run_status
from volseg.testing.factories import make_volume, read_volume

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(600)]
__all__ = ["slurm"]
OPTIONS = "--device cpu --precision float32 --halo 0,8,8 --block 1,32,32 --tile 1,32,32 --cluster serial"


def array_script(folder: Path, raw: Path, model: Path) -> Path:
    """The workflow's array with the lines to adapt, of three tasks."""
    text = (ROOT / "workflows" / "slurm" / "array.sbatch").read_text()
    for name, path in {"SOURCE": raw, "TARGET": folder / "map.zarr", "MODEL": model}.items():
        text = re.sub(rf"^{name}=\S+", f"{name}={path}", text, flags=re.MULTILINE)
    for name, value in {"array": "1-3", "time": "00:10:00", "cpus-per-task": "1"}.items():
        text = re.sub(rf"^#SBATCH --{name}=\S+", f"#SBATCH --{name}={value}", text, flags=re.MULTILINE)
    text = text.replace("#SBATCH --gpus-per-task=1", "#").replace(
        'source "$HOME/volseg/.venv/bin/activate"', f'export PATH="{Path(sys.executable).parent}:$PATH"'
    )
    script = folder / "array.sbatch"
    script.write_text(
        text.replace("volseg predict", "python -m volseg predict").replace(" --part", f" {OPTIONS} --part")
    )
    return script


def wait_for_tasks(job: str, folder: Path) -> list[str]:
    """What each task said, once all have ended."""
    until = time.monotonic() + 240
    while any(name.startswith(job) for name in daemons.jobs()):
        assert time.monotonic() < until, daemons.jobs()
        time.sleep(0.3)
    return [(folder / f"volseg-{job}-{task}.log").read_text() for task in (1, 2, 3)]


def assert_bytes_of_one_driver(folder: Path, raw: Path, model: Path) -> None:
    volseg.predict(
        str(raw), str(folder / "one.zarr"), model=str(model), cluster="serial", device="cpu",
        precision="float32", halo=(0, 8, 8), block=(1, 32, 32), tile=(1, 32, 32),
    )  # fmt: skip
    np.testing.assert_array_equal(read_volume(folder / "map.zarr"), read_volume(folder / "one.zarr"))


def test_tasks_of_an_array_write_the_map_of_one_driver(slurm: None, small_model: Path, tmp_path: Path) -> None:
    raw = make_volume(tmp_path / "raw.zarr", (3, 96, 96))
    logs = wait_for_tasks(submit(array_script(tmp_path, raw, small_model)), tmp_path)
    assert sum("all parts are done" in log for log in logs) >= 1, logs
    assert run_status(tmp_path / "map.zarr").state == "complete", logs
    assert_bytes_of_one_driver(tmp_path, raw, small_model)


def test_a_task_that_is_cancelled_midway_goes_on_when_the_array_is_submitted_again(
    slurm: None, small_model: Path, tmp_path: Path
) -> None:
    raw = make_volume(tmp_path / "raw.zarr", (24, 128, 192))
    job = submit(array_script(tmp_path, raw, small_model))
    own = tmp_path / "map.zarr" / "0" / "c" / "10"  # of the second part
    until = time.monotonic() + 180
    while not own.exists():
        assert time.monotonic() < until, daemons.jobs()
        time.sleep(0.05)
    subprocess.run(["scancel", f"{job}_2"], check=True)
    logs = wait_for_tasks(job, tmp_path)
    assert run_status(tmp_path / "map.zarr").state != "complete", logs
    assert "Stopped." in logs[1], logs[1]
    assert not re.search("Traceback|Killed", "".join(logs)), logs
    logs = wait_for_tasks(submit(array_script(tmp_path, raw, small_model)), tmp_path)
    assert run_status(tmp_path / "map.zarr").state == "complete", logs
    assert_bytes_of_one_driver(tmp_path, raw, small_model)
