"""Several processes train as one would with as many patches."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

import volseg.training.distributed
from tests.training.runs import learn, log_of, make_stripes, run
from volseg.config import as_toml
from volseg.errors import ConfigError
from volseg.models.model import load_model_file
from volseg.training.distributed import Processes, joined

if TYPE_CHECKING:
    from pathlib import Path

# No batch norm: its statistics are of one process's patches alone. Augmentation follows the patch, not the process.
TABLES: dict[str, Any] = {
    "network": {"name": "unet", "arguments": {"width": 4, "depth": 1, "padded": True, "dropout": 0.0}},
    "augmentation": {"elastic": "grid", "noise": 0.1, "blur": 1.0},
    "fit": {"steps": 6},
    "validation": {"every": 3},
}


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "volseg"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=200)


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data = make_stripes(tmp_path)
    config = run(data, tmp_path / "two", patches={"batch": 2, "accumulate": 2}, **TABLES)
    (tmp_path / "run.toml").write_text(as_toml(config))
    done = torchrun("train", str(tmp_path / "run.toml"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("6 steps in") == 1, "only the first process speaks"
    alone = learn(run(data, tmp_path / "one", patches={"batch": 4, "accumulate": 2}, **TABLES))
    together = [entry["loss"] for entry in log_of(tmp_path / "two") if "loss" in entry]
    np.testing.assert_allclose(together, alone.losses, atol=1e-5)
    one, two = (load_model_file(tmp_path / n / "model-last.safetensors").network for n in ("one", "two"))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    again = torchrun("train", str(tmp_path / "run.toml"), "--resume", "--set", "fit.steps=7")
    assert again.returncode == 0, again.stderr
    assert log_of(tmp_path / "two")[-1]["step"] == 7


def test_torchruns_variables_must_be_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with (
        pytest.raises(ConfigError, match="WORLD_SIZE, RANK and LOCAL_RANK must all be set .*; start with torchrun"),
        joined("cpu"),
    ):
        pass


def test_alone_nothing_is_wrapped_or_told() -> None:
    alone = Processes(0, 1, "cpu")
    network = nn.Conv2d(1, 1, 1)
    assert alone.wrapped(network) is network
    assert alone.broadcast(0.25) == 0.25
    assert alone.mean(torch.tensor(3.0)) == 3.0


@pytest.mark.parametrize(("device", "synchronised"), [("cuda:0", True), ("cpu", False)])
def test_on_cuda_batch_norms_see_all_processes(
    monkeypatch: pytest.MonkeyPatch, device: str, synchronised: bool
) -> None:
    monkeypatch.setattr(volseg.training.distributed, "DistributedDataParallel", lambda network: network)
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    wrapped = Processes(0, 2, device).wrapped(network)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in wrapped.modules()) == synchronised
    assert list(map(id, wrapped.parameters())) == list(map(id, network.parameters())), (
        "those that the optimiser and the checkpoint know"
    )
