"""Resume: identical to a training that was never stopped, and refused with other settings."""

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

from tests.training.runs import log_of, make_config, make_stripes, train_config
from volseg.config import as_toml
from volseg.errors import ResumeError, TrainingError, VolsegError
from volseg.models import read_card
from volseg.training.checkpoint import Checkpoint, read_checkpoint, write_atomic, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

# All kinds of state and of random numbers: dropout, EMA, optimizer moments, augmentation.
TABLES: dict[str, Any] = {
    "network": {"name": "fcn8s", "arguments": {"width": 4, "padded": True, "dropout": 0.5}},
    "augmentation": {"elastic": "grid", "noise": 0.2, "blur": 1.0, "fold": 0.1},
    "optimizer": {"ema_decay": 0.9, "learning_rate": 1e-3},
    "fit": {"steps": 20, "precision": "bfloat16"},
    "validation": {"every": 5},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stripes(tmp_path_factory.mktemp("stripes"))


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of twenty uninterrupted steps."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("uninterrupted")
    train_config(make_config(data, folder, **TABLES))
    return folder


def log_without_times(folder: Path) -> list[dict[str, Any]]:
    """Log entries without times."""
    return [{k: v for k, v in entry.items() if k not in ("seconds", "waited")} for entry in log_of(folder)]


def assert_same_training(one: Path, other: Path) -> None:
    assert log_without_times(one) == log_without_times(other)
    for name in ("model", "model-last"):
        assert read_card(one / f"{name}.safetensors").digest == read_card(other / f"{name}.safetensors").digest
    first, second = (read_checkpoint(folder / "checkpoint.safetensors").tensors for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(
    data: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    config = make_config(data, tmp_path, **TABLES)
    stopped = train_config(config, stop_after=7)
    assert (stopped.steps, stopped.finished) == (7, False)
    again = train_config(config, stop_after=3, resume=True)
    assert (again.steps, len(again.losses)) == (10, 3)
    resumed = train_config(config, resume=True)
    assert (resumed.steps, resumed.finished) == (20, True)
    assert_same_training(tmp_path, uninterrupted)


KILLED_WHILE_WRITING = """
import os, signal, sys
import torch
import volseg.training.checkpoint as checkpoint
from tests.training.runs import RecordingReporter
from volseg.training.run import train
from volseg.config import TrainConfig, read_toml

torch.set_num_threads(1)
saved = 0
save = checkpoint.save
def counting_save(*arguments):
    global saved
    saved += 1
    return save(*arguments)
def fsync(descriptor):
    if saved == 2:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save = counting_save
checkpoint.os.fsync = fsync
train(read_toml(sys.argv[1], TrainConfig), RecordingReporter())
"""


def test_killed_while_writing_it_resumes_from_the_previous_checkpoint(
    data: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    config = make_config(data, tmp_path / "run", **TABLES)
    (tmp_path / "run.toml").write_text(as_toml(config))
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path / "run.toml")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "run" / "checkpoint.safetensors.partial").exists()
    assert read_checkpoint(tmp_path / "run" / "checkpoint.safetensors").metadata["step"] == 5
    assert log_of(tmp_path / "run")[-1]["step"] == 10
    train_config(config, resume=True)
    assert_same_training(tmp_path / "run", uninterrupted)


def test_a_full_disk_is_a_one_line_error_and_the_previous_checkpoint_stays(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(data, tmp_path, fit={"steps": 8}, validation={"every": 2})
    train_config(config, stop_after=2)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The file size limit acts like a full disk; the log fits.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(VolsegError, match=r"cannot write .*: File too large; "):
            train_config(config, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert train_config(config, resume=True).steps == 8


def test_a_log_that_cannot_grow_is_a_one_line_error(data: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    config = make_config(data, tmp_path, fit={"steps": 50})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(TrainingError, match=r"cannot write .*log.jsonl: File too large; "):
            train_config(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("table", "changes", "message"),
    [
        ("optimizer", {"learning_rate": 0.5}, r"started with optimizer.learning_rate 0.01, not 0.5"),
        ("patches", {"batch": 2}, r"started with patches.batch 4, not 2"),
        (
            "network",
            {"arguments": {"width": 6, "depth": 1}},
            r"started with network.arguments .*'width': 4.*'width': 6",
        ),
        ("data", {"weight": 2.0}, r"started with data.weight 1.0, not 2.0; resume"),
    ],
)
def test_changed_settings_are_refused(data: Path, tmp_path: Path, table: str, changes: Any, message: str) -> None:
    train_config(make_config(data, tmp_path, fit={"steps": 2}))
    with pytest.raises(ResumeError, match=message):
        train_config(make_config(data, tmp_path, **{"fit": {"steps": 2}, table: changes}), resume=True)


def test_more_steps_continue_and_a_finished_training_does_nothing(data: Path, tmp_path: Path) -> None:
    train_config(make_config(data, tmp_path, fit={"steps": 2}))
    assert train_config(make_config(data, tmp_path, fit={"steps": 2}), resume=True).losses == []
    assert train_config(make_config(data, tmp_path, fit={"steps": 3}), resume=True).steps == 3
    assert [entry["step"] for entry in log_of(tmp_path) if "loss" in entry] == [1, 2, 3]


def test_an_existing_training_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    train_config(make_config(data, tmp_path, fit={"steps": 2}))
    with pytest.raises(TrainingError, match=r"checkpoint.safetensors of another training; .*--resume"):
        train_config(make_config(data, tmp_path, fit={"steps": 2}))


def test_resume_without_a_checkpoint_starts(data: Path, tmp_path: Path) -> None:
    assert train_config(make_config(data, tmp_path, fit={"steps": 2}), resume=True).steps == 2


def test_an_invalid_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(TrainingError, match="there is no checkpoint"):
        read_checkpoint(path)
    path.write_bytes(b"half of")
    with pytest.raises(TrainingError, match="is not a checkpoint that can be resumed"):
        read_checkpoint(path)
    write_checkpoint(path, Checkpoint({"a": torch.ones(3)}, {"step": 4}))
    assert read_checkpoint(path).metadata == {"step": 4}
    write_checkpoint(path, Checkpoint({"a": torch.ones(3)}, {"step": 4, "format": 99}))
    with pytest.raises(TrainingError, match="written by another version"):
        read_checkpoint(path)


def test_a_file_is_replaced_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match="cannot write .*: No space left on device; "):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_sigterm_to_the_process_group_leaves_a_checkpoint(data: Path, tmp_path: Path) -> None:
    config = make_config(data, tmp_path / "run", fit={"steps": 10**6}, patches={"workers": 1, "accumulate": 8})
    (tmp_path / "run.toml").write_text(as_toml(config))
    command = [sys.executable, "-m", "volseg", "train", str(tmp_path / "run.toml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as training:
        while not (tmp_path / "run" / "log.jsonl").exists():
            time.sleep(0.1)
            assert training.poll() is None
        time.sleep(1)
        os.killpg(training.pid, signal.SIGTERM)
        _, stderr = training.communicate(timeout=60)
    assert training.returncode == 1
    assert re.search(r"Stopped after \d+ steps.* volseg train .* --resume", stderr), stderr
    assert read_checkpoint(tmp_path / "run" / "checkpoint.safetensors").metadata["step"] >= 1
