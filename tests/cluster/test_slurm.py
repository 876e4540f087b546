"""Runs on a real Slurm: workers as jobs that are cancelled or reach their walltime, and a driver that requeues."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tests.cluster import slurm as daemons
from volseg.cli.main import main
from volseg.cluster import connect, run_blocks
from volseg.config import read_cluster
from volseg.testing.doubles import ActAfter, MarkRecorder, sleep_and_report
from volseg.testing.factories import make_volume, read_volume

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
KEYS = {"system": "slurm", "cores": 1, "memory": "2GB", "interface": "lo", "walltime": "10min"}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if reason := daemons.missing():
        pytest.skip(reason)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    with ExitStack() as started:
        try:
            started.enter_context(daemons.slurm(tmp_path_factory.mktemp("slurm")))
        except OSError as error:  # a container may allow no device files, or no daemons
            pytest.skip(f"Slurm does not start here: {error}")
        yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def write_toml(path: Path, **keys: object) -> Path:
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in (KEYS | keys).items()))
    return path


def test_blocks_of_a_cancelled_job_are_done_by_the_other_and_no_job_is_left(slurm: None, tmp_path: Path) -> None:
    cluster, marks = read_cluster({**KEYS, "log_directory": str(tmp_path / "logs")}), MarkRecorder()

    def cancel_one() -> None:
        number = sorted(daemons.jobs())[0]
        subprocess.run(["scancel", number], check=True)

    notes = ActAfter(6, cancel_one)
    with connect(cluster, 2, note=notes.note) as executor:
        until = time.monotonic() + 60
        while len(executor.workers) < 2 and time.monotonic() < until:
            executor.refresh(force=True)  # type: ignore[attr-defined]
            time.sleep(0.2)
        assert executor.slots == 4
        outcome = run_blocks(executor, range(40), sleep_and_report, marks, notes)
    assert (outcome.done, outcome.failed, sorted(marks.done)) == (40, {}, list(range(40)))
    assert notes.lines[0].startswith("2 jobs of slurm, each with the default queue, no GPU, 1 core, 2 GiB, 00:10:00")
    until = time.monotonic() + 30
    while daemons.jobs() and time.monotonic() < until:
        time.sleep(0.2)
    assert daemons.jobs() == {}
    assert list((tmp_path / "logs").glob("volseg-*.err"))


@pytest.mark.slow
def test_predict_on_a_file_ends_with_the_bytes_of_a_local_run(
    slurm: None, raw: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--model", str(small_model), "--block", "2,32,32", "--halo", "0,8,8", "--tile", "1,32,32",
               "--precision", "float32", "--device", "cpu"]  # fmt: skip
    serial = CliRunner().invoke(main, ["predict", str(raw), "serial.zarr", *options, "--cluster", "serial"])
    assert serial.exit_code == 0, serial.output
    jobs = ["--cluster", str(write_toml(tmp_path / "slurm.toml", gpus=1)), "--workers", "2"]
    command = [sys.executable, "-m", "volseg", "predict", str(raw), "slurm.zarr", *options, *jobs]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    cancelled: list[str] = []
    threading.Timer(0, cancel_when_written, [tmp_path / "slurm.zarr", cancelled]).start()
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert len(cancelled) == 1
    assert "27 of 27 blocks" in said, said
    assert (read_volume(tmp_path / "slurm.zarr") == read_volume(tmp_path / "serial.zarr")).all()


def cancel_when_written(target: Path, cancelled: list[str]) -> None:
    """Cancel one worker's job once a block is written."""
    until = time.monotonic() + 120
    while not written(target) and time.monotonic() < until:
        time.sleep(0.05)
    cancelled += [number for number, state in sorted(daemons.jobs().items()) if state == "RUNNING"][:1]
    subprocess.run(["scancel", *cancelled], check=False)


def adapted(folder: Path, raw: Path, model: Path, **lines: str) -> Path:
    """The workflow's job, with the lines to adapt and a small tile; `lines` replaces directives."""
    text = (ROOT / "workflows" / "slurm" / "predict.sbatch").read_text()
    directives = {"time": "00:10:00", "nodes": "1", "cpus-per-task": "1", "mem": "2G"} | lines
    for name, value in directives.items():
        text = re.sub(rf"^#SBATCH --{name}=\S+", f"#SBATCH --{name}={value}", text, flags=re.MULTILINE)
    paths = {"SOURCE": raw, "TARGET": folder / "map.zarr", "MODEL": model}
    for name, path in paths.items():
        text = re.sub(rf"^{name}=\S+", f"{name}={path}", text, flags=re.MULTILINE)
    text = text.replace(
        'source "$HOME/volseg/.venv/bin/activate"', f'export PATH="{Path(sys.executable).parent}:$PATH"'
    )
    text = text.replace("#SBATCH --gpus-per-task=1", "#").replace("host=$(hostname)", "host=127.0.0.1")
    options = "--device cpu --precision float32 --halo 0,8,8 --block 1,32,32 --tile 1,32,32 --resume"
    script = folder / "predict.sbatch"
    script.write_text(text.replace("--resume &", f"{options} &").replace("volseg predict", "python -m volseg predict"))
    return script


def submit(script: Path) -> str:
    done = subprocess.run(["sbatch", "--parsable", str(script)], cwd=script.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_for_end(job: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    while job in daemons.jobs():
        assert time.monotonic() < until, daemons.output("scontrol", "show", "job", job)
        time.sleep(0.3)


@pytest.mark.slow
def test_the_workflow_requeues_itself_after_a_signal_and_ends_quietly(
    slurm: None, small_model: Path, tmp_path: Path
) -> None:
    raw = make_volume(tmp_path / "raw.zarr", (12, 128, 256))
    job = submit(adapted(tmp_path, raw, small_model))
    for _ in range(2):
        seen = written(tmp_path / "map.zarr")
        until = time.monotonic() + 120
        while written(tmp_path / "map.zarr") < seen + 3 and time.monotonic() < until:
            time.sleep(0.1)
        subprocess.run(["scancel", "--batch", "--signal=USR1", job], check=True)
        while daemons.jobs().get(job) == "RUNNING" and time.monotonic() < until:
            time.sleep(0.1)
    wait_for_end(job, 240)
    log = (tmp_path / f"volseg-{job}.log").read_text()
    assert log.count("Stopped. To finish") == 2, log
    assert "of 384 blocks" in log, log
    assert not re.search("CommClosed|Killed|Traceback|Error|Terminated|Cancelled", log), log
    workers = (tmp_path / f"volseg-workers-{job}.log").read_text()
    assert not re.search("CommClosed|Killed", workers), workers


def written(target: Path) -> int:
    """Shards that are written."""
    return sum(path.is_file() for path in (target / "0" / "c").rglob("*"))


@pytest.mark.slow
def test_a_check_starts_one_job_and_cancels_it(slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_toml(tmp_path / "slurm.toml", cores=2)
    done = CliRunner().invoke(main, ["cluster", "check", str(path), "--write", "map.zarr", "--json"])
    assert done.exit_code == 0, done.output
    (worker,) = json.loads(done.stdout)["workers"]
    assert (worker["cores"], worker["write"]) == (2, {"map.zarr": "writable"})
    assert worker["memory"] <= 2 << 30
    assert daemons.jobs() == {} or "RUNNING" not in daemons.jobs().values()


@pytest.mark.slow
def test_a_check_names_the_partitions_that_there_are_and_why_a_job_waits(
    slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["cluster", "check", "slurm", "--memory", "2GB", "--queue"]
    refused = CliRunner().invoke(main, [*options, "nowhere"])
    assert refused.exit_code == 1
    assert "Invalid partition name specified; partitions here: debug\n" in refused.output
    command = [sys.executable, "-m", "volseg", *options, "debug", "--cores", "64"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "waiting for the first worker" in line)
        process.terminate()
        process.communicate(timeout=60)
    assert "PENDING (PartitionConfig): the queue has no nodes for it; lower --cores" in line
    assert process.returncode == 4
