"""Clusters that are joined: refused where they cannot work, used, and left as they were."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import volseg
from volseg.cluster import NullProgress, check_cluster, connect, run_blocks
from volseg.cluster.dask_executor import DaskExecutor
from volseg.cluster.executor import SLOTS
from volseg.cluster.joined import CONNECT_SECONDS
from volseg.errors import ClusterError, ConfigError
from volseg.testing.doubles import MarkRecorder, NoteRecorder, report, sleep_and_report
from volseg.testing.factories import read_volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volseg.pipeline import BlockReport


def test_a_scheduler_that_dies_is_one_clear_error(free_scheduler: str) -> None:
    process = start_worker(free_scheduler, "--nthreads", "2", "--resources", "slot=2")
    try:
        with joined(free_scheduler) as cluster:
            assert isinstance(cluster, DaskExecutor)
            pid = cluster.client.run_on_scheduler(os.getpid)

            def kill_early(block: BlockReport, attempt: int, worker: str) -> None:
                if block.number == 2:
                    os.kill(pid, 9)

            with pytest.raises(ClusterError, match="lost; .*--resume"):
                run_blocks(cluster, range(10_000), sleep_and_report, kill_early, NullProgress())
    finally:
        process.kill()
        process.wait()


def test_a_cluster_without_workers_left_is_said_and_given_up(
    free_scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import volseg.cluster.worker_watch as running

    monkeypatch.setattr(running, "_LIVENESS_SECONDS", 0.5)
    monkeypatch.setattr(running, "_NO_WORKERS_SECONDS", 2.0)
    process, notes = start_worker(free_scheduler, "--nthreads", "2", "--resources", "slot=2"), NoteRecorder()

    def kill_early(block: BlockReport, attempt: int, worker: str) -> None:
        if block.number == 2:
            process.kill()
            process.wait()

    with pytest.raises(ClusterError, match="has had no workers for .* minutes"), joined(free_scheduler) as cluster:
        run_blocks(cluster, range(10_000), sleep_and_report, kill_early, notes)
    assert any("no workers left" in line for line in notes.lines)


@pytest.fixture
def free_scheduler() -> Iterator[str]:
    """A scheduler without workers."""
    code = (
        "import asyncio; from distributed import Scheduler\n"
        "async def main():\n"
        "    async with Scheduler(host='127.0.0.1', port=0, dashboard_address='127.0.0.1:0') as s:\n"
        "        print(s.address, flush=True); await s.finished()\n"
        "asyncio.run(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.kill()
    process.wait()
    process.stdout.close()


def start_worker(address: str, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard", "--no-nanny", *options]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def test_a_cluster_without_workers_is_refused(free_scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("volseg.cluster.joined"), "WORKER_SECONDS", 0.5)
    with pytest.raises(ClusterError, match=r"has no workers; .*--resources slot=2"), connect(free_scheduler, None):
        pass


def test_a_joined_cluster_does_the_work_and_outlives_it(free_scheduler: str) -> None:
    process = start_worker(free_scheduler, "--nthreads", "2", "--resources", "slot=2")
    try:
        for _ in range(2):
            with joined(free_scheduler) as cluster:
                marks = MarkRecorder()
                run_blocks(cluster, range(10), report, marks, NullProgress())
                assert sorted(marks.done) == list(range(10))
    finally:
        process.kill()
        process.wait()


def test_predict_runs_on_a_joined_cluster(free_scheduler: str, raw: Path, small_model: Path, tmp_path: Path) -> None:
    options: Any = {"model": str(small_model), "block": (2, 32, 32), "precision": "float32"}
    volseg.predict(str(raw), str(tmp_path / "serial.zarr"), **options, cluster="serial")
    process = start_worker(free_scheduler, "--nthreads", "2", "--resources", "slot=2")
    try:
        # The worker may still be on its way: a driver that starts beside it waits a little.
        summary = volseg.predict(str(raw), str(tmp_path / "joined.zarr"), **options, cluster=free_scheduler)
    finally:
        process.kill()
        process.wait()
    assert (summary.done, summary.failed) == (27, {})
    assert set(summary.workers) != {"this process"}
    assert np.abs(read_volume(tmp_path / "joined.zarr").astype(int) - read_volume(tmp_path / "serial.zarr")).max() <= 1


def joined(address: str):
    """Connect once the worker has come up."""
    for _ in range(60):
        try:
            connection = connect(address, None)
            cluster = connection.__enter__()
        except ClusterError:
            time.sleep(0.5)
        else:
            connection.__exit__(None, None, None)
            assert cluster.slots == SLOTS
            return connect(address, None)
    raise AssertionError("no worker came up")


def test_an_unreachable_scheduler_is_refused_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CONNECT_SECONDS == 5
    monkeypatch.setattr(import_module("volseg.cluster.joined"), "CONNECT_SECONDS", 1)
    started = time.monotonic()
    with (
        pytest.raises(ClusterError, match="no scheduler answers at tcp://127.0.0.1:9 within 1 s"),
        connect("tcp://127.0.0.1:9", None),
    ):
        pass
    assert time.monotonic() - started < 9


def make_certificates(folder: Path) -> Path:
    """A folder with a certificate that is its own authority, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder.mkdir(exist_ok=True)
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=volseg"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*new, *files], check=True, capture_output=True)
    shutil.copy(folder / "cert.pem", folder / "ca.pem")
    return folder


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def test_a_cluster_is_joined_over_tls(certificates: Path) -> None:
    files = [f"--tls-{option}={certificates / f'{name}.pem'}" for option, name in
             (("ca-file", "ca"), ("cert", "cert"), ("key", "key"))]  # fmt: skip
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "tls://127.0.0.1", "--port", "0",
               "--no-dashboard", *files]  # fmt: skip
    scheduler = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert scheduler.stderr is not None
    address = next(line.split()[-1] for line in scheduler.stderr if "Scheduler at:" in line)
    worker = start_worker(address, "--nthreads", "2", "--resources", "slot=2", *files)
    try:
        with connect(address, None, tls=str(certificates)) as executor:
            assert executor.slots == SLOTS
        with pytest.raises(ClusterError, match="needs certificates, .*; give --tls FOLDER"), connect(address, None):
            pass
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
        scheduler.stderr.close()


def test_certificates_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"has no ca\.pem, cert\.pem, key\.pem"),
        connect("tls://h:1", None, tls="/none"),
    ):
        pass
    for name in ("tcp://h:1", "local"):
        with pytest.raises(ConfigError, match=rf"--tls .* needs .*--cluster tls://HOST:PORT, not {name}"):
            connect(name, None, tls=str(tmp_path)).__enter__()


@pytest.mark.parametrize(
    "address",
    ["tcp://head", "tcp://:8786", "tcp://head:99999", "tls://head:port", "tcp://head:1/x", "http://head:1", "://"],
)
def test_a_malformed_address_is_refused_without_connecting(address: str) -> None:
    with pytest.raises(ConfigError, match=f"--cluster '{address}' is not a scheduler's address"):
        check_cluster(address)


@pytest.mark.parametrize("name", ["serial", "local", "tcp://head:8786", "tls://[::1]:8786", "inproc://10.0.0.1/7/1"])
def test_a_name_of_a_cluster_is_accepted_without_connecting(name: str) -> None:
    check_cluster(name)


def test_an_unknown_kind_is_refused() -> None:
    wrong = r"--cluster 'slrum' is not one of local, serial, slurm, .* \(did you mean 'slurm'\?\), a FILE.toml, or"
    with pytest.raises(ConfigError, match=wrong), connect("slrum", None):
        pass
