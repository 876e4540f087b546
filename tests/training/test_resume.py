"""A training that was stopped, by whatever, goes on as if it had never stopped; and only as itself."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.training.runs import learn, log_of, make_stripes, run
from volseg.config import as_toml
from volseg.errors import ResumeError, TrainingError, VolsegError
from volseg.models import read_card
from volseg.training.checkpoint import Checkpoint, read_checkpoint, replace_file, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

# Every kind of chance and of state: drop-out, averaging, moments, augmentation, workers.
TABLES: dict[str, Any] = {
    "network": {"name": "fcn8s", "arguments": {"width": 4, "padded": True, "dropout": 0.5}},
    "augmentation": {"elastic": "grid", "noise": 0.2, "blur": 1.0, "fold": 0.1},
    "optimizer": {"average": 0.9, "learning_rate": 1e-3},
    "fit": {"steps": 20, "precision": "bfloat16"},
    "validation": {"every": 5},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stripes(tmp_path_factory.mktemp("stripes"))


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of twenty steps that nothing disturbed."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("unbroken")
    learn(run(data, folder, **TABLES))
    return folder


def told(folder: Path) -> list[dict[str, Any]]:
    """What a log says of the training itself, without times."""
    return [{k: v for k, v in entry.items() if k not in ("seconds", "waited")} for entry in log_of(folder)]


def assert_same_training(one: Path, other: Path) -> None:
    assert told(one) == told(other)
    for name in ("model", "model-last"):
        assert read_card(one / f"{name}.safetensors").digest == read_card(other / f"{name}.safetensors").digest
    first, second = (read_checkpoint(folder / "checkpoint.safetensors").tensors for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_ten_steps_a_resume_and_ten_more_are_twenty_bit_for_bit(data: Path, tmp_path: Path, unbroken: Path) -> None:
    config = run(data, tmp_path, **TABLES)
    stopped = learn(config, stop_after=7)
    assert (stopped.steps, stopped.finished) == (7, False)
    again = learn(config, stop_after=3, resume=True)
    assert (again.steps, len(again.losses)) == (10, 3)
    resumed = learn(config, resume=True)
    assert (resumed.steps, resumed.finished) == (20, True)
    assert_same_training(tmp_path, unbroken)


KILLED_IN_MID_WRITE = """
import os, signal, sys
import torch
import volseg.training.checkpoint as checkpoint
from tests.training.runs import Heard
from volseg.training.run import train
from volseg.config import TrainConfig, read_toml

torch.set_num_threads(1)
written = 0
def fsync(descriptor):
    global written
    written += "checkpoint" in os.readlink(f"/proc/self/fd/{descriptor}")
    if written == 2:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.os.fsync = fsync
train(read_toml(sys.argv[1], TrainConfig), Heard())
"""


def test_killed_in_mid_write_it_goes_on_from_the_checkpoint_before(data: Path, tmp_path: Path, unbroken: Path) -> None:
    config = run(data, tmp_path / "run", **TABLES)
    (tmp_path / "run.toml").write_text(as_toml(config))
    killed = subprocess.run([sys.executable, "-c", KILLED_IN_MID_WRITE, str(tmp_path / "run.toml")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "run" / "checkpoint.safetensors.partial").exists()
    assert read_checkpoint(tmp_path / "run" / "checkpoint.safetensors").facts["step"] == 5
    assert log_of(tmp_path / "run")[-1]["step"] == 10
    learn(config, resume=True)
    assert_same_training(tmp_path / "run", unbroken)


def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run(data, tmp_path, fit={"steps": 8}, validation={"every": 2})
    learn(config, stop_after=2)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond what the log needs: the system refuses the rest as it would on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(VolsegError, match=r"cannot write .*: File too large; "):
            learn(config, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert learn(config, resume=True).steps == 8


def test_a_log_that_cannot_grow_is_one_line(data: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    config = run(data, tmp_path, fit={"steps": 50})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(TrainingError, match=r"cannot write .*log.jsonl: File too large; make room"):
            learn(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("table", "given", "told"),
    [
        ("optimizer", {"learning_rate": 0.5}, r"begun with optimizer.learning_rate 0.01, not 0.5"),
        ("patches", {"batch": 2}, r"begun with patches.batch 4, not 2"),
        ("network", {"arguments": {"width": 6, "depth": 1}}, r"begun with network.arguments .*'width': 4.*'width': 6"),
        ("data", {"weight": 2.0}, r"begun with data.weight 1.0, not 2.0; resume with"),
    ],
)
def test_only_the_same_training_goes_on(data: Path, tmp_path: Path, table: str, given: Any, told: str) -> None:
    learn(run(data, tmp_path, fit={"steps": 2}))
    with pytest.raises(ResumeError, match=told):
        learn(run(data, tmp_path, **{"fit": {"steps": 2}, table: given}), resume=True)


def test_it_may_go_on_for_longer_and_a_finished_one_has_nothing_to_do(data: Path, tmp_path: Path) -> None:
    learn(run(data, tmp_path, fit={"steps": 2}))
    assert learn(run(data, tmp_path, fit={"steps": 2}), resume=True).losses == []
    assert learn(run(data, tmp_path, fit={"steps": 3}), resume=True).steps == 3
    assert [entry["step"] for entry in log_of(tmp_path) if "loss" in entry] == [1, 2, 3]


def test_a_training_never_writes_over_another(data: Path, tmp_path: Path) -> None:
    learn(run(data, tmp_path, fit={"steps": 2}))
    with pytest.raises(TrainingError, match=r"holds checkpoint.safetensors of another training; go on .* by --resume"):
        learn(run(data, tmp_path, fit={"steps": 2}))


def test_a_resume_of_nothing_begins(data: Path, tmp_path: Path) -> None:
    assert learn(run(data, tmp_path, fit={"steps": 2}), resume=True).steps == 2


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(TrainingError, match="there is no checkpoint"):
        read_checkpoint(path)
    path.write_bytes(b"half of")
    with pytest.raises(TrainingError, match="is not a checkpoint that can be resumed"):
        read_checkpoint(path)
    write_checkpoint(path, Checkpoint({"a": torch.ones(3)}, {"step": 4}))
    assert read_checkpoint(path).facts == {"step": 4}
    write_checkpoint(path, Checkpoint({"a": torch.ones(3)}, {"step": 4, "format": 99}))
    with pytest.raises(TrainingError, match="written by another version"):
        read_checkpoint(path)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match="cannot write .*: No space left on device; make room"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_a_batch_system_that_ends_all_processes_leaves_a_checkpoint(data: Path, tmp_path: Path) -> None:
    config = run(data, tmp_path / "run", fit={"steps": 10**6}, patches={"workers": 1, "accumulate": 8})
    (tmp_path / "run.toml").write_text(as_toml(config))
    command = [sys.executable, "-m", "volseg", "train", str(tmp_path / "run.toml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as training:
        while not (tmp_path / "run" / "log.jsonl").exists():
            time.sleep(0.1)
            assert training.poll() is None
        time.sleep(1)
        os.killpg(training.pid, signal.SIGTERM)
        _, told = training.communicate(timeout=60)
    assert training.returncode == 1
    assert re.search(r"Stopped after \d+ steps; volseg train .* --resume goes on", told), told
    assert read_checkpoint(tmp_path / "run" / "checkpoint.safetensors").facts["step"] >= 1
