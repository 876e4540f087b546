"""What a worker sees is shown, and what does not fit is one line and exit code 1."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from volseg.cli.main import main
from volseg.config import read_cluster
from volseg.prediction.cluster_check import WorkerView, _faults
from volseg.testing.doubles import address_of

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.cluster.dask_executor import DaskExecutor

HERE = {"volseg": "1", "torch": "2"}


def view(**changes: Any) -> WorkerView:
    fields: dict[str, Any] = {
        "host": "n1", "cores": 4, "memory": 8 << 30, "device": "cpu", "gpu": "", "gpu_memory": 0, "versions": HERE,
        "read": {}, "write": {},
    }  # fmt: skip
    return WorkerView(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"versions": {"volseg": "1", "torch": "3"}}, "n1 has torch 3, and this process 2"),
        ({"versions": {"volseg": "1"}}, "n1 has no torch"),
        ({"read": {"/a": "No such file or directory"}}, "n1 cannot read /a (No such file or directory)"),
        ({"write": {"/a": "/: Read-only file system"}}, "n1 cannot write /a (/: Read-only file system)"),
        ({"write": {"/b": "writable"}}, "/b on n1 is not /b here: what it writes is not seen"),
        ({"cores": 2}, "a job asks for 4 cores, and the worker on n1 may use 2"),
        ({"memory": 2 << 30}, "a job asks for 8192 MiB, and 2048 MiB are free for the worker on n1"),
    ],
)
def test_each_thing_that_does_not_fit_is_named(changes: dict[str, Any], fault: str | None) -> None:
    cluster = read_cluster({"system": "slurm", "memory": "8GB"})
    assert _faults(view(**changes), cluster, HERE, {"/b": False}) == ([fault] if fault else [])


def test_a_gpu_that_is_not_seen_is_named() -> None:
    cluster = read_cluster({"system": "slurm", "memory": "8GB", "gpus": 1})
    assert _faults(view(), cluster, HERE, {}) == ["a job asks for 1 GPU, and torch sees none on n1"]


def test_workers_of_a_scheduler_are_asked_and_nothing_is_left(two_workers: DaskExecutor, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"1")
    paths = ["--read", str(tmp_path / "model"), "--write", str(tmp_path / "map.zarr")]
    done = CliRunner().invoke(main, ["cluster", "check", address_of(two_workers), *paths, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert len(found["workers"]) == 2
    assert found["workers"][0]["read"] == {str(tmp_path / "model"): "readable"}
    assert found["workers"][0]["write"] == {str(tmp_path / "map.zarr"): "writable"}
    assert found["workers"][0]["versions"] == found["versions"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_path_that_cannot_be_read_is_one_line_and_exit_code_1() -> None:
    done = CliRunner().invoke(main, ["cluster", "check", "serial", "--read", "/no/such/file"])
    assert done.exit_code == 1
    assert "DOES NOT FIT" in done.stdout
    assert "cannot read /no/such/file (No such file or directory)" in done.stderr
    assert done.stderr.count("Error: ") == 1
