"""Distributed training: several processes equal one with a larger batch."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

import volseg.training.distributed
from tests.training.runs import log_of, make_config, make_stripes, train_config
from volseg.config import as_toml
from volseg.errors import ConfigError
from volseg.models.model import load_model_file
from volseg.training.distributed import DistributedContext, init_distributed

if TYPE_CHECKING:
    from pathlib import Path

# No batch norm: on a CPU it is not synchronised. Augmentation depends on the patch, not on the process.
TABLES: dict[str, Any] = {
    "network": {"name": "unet", "arguments": {"width": 4, "depth": 1, "padded": True, "dropout": 0.0}},
    "augmentation": {"elastic": "grid", "noise": 0.1, "blur": 1.0},
    "fit": {"steps": 6},
    "validation": {"every": 3},
}


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "volseg"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.parametrize("resume", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path, resume: bool) -> None:
    torch.set_num_threads(1)
    data = make_stripes(tmp_path)
    config = make_config(data, tmp_path / "two", patches={"batch": 2, "accumulate": 2}, **TABLES)
    (tmp_path / "run.toml").write_text(as_toml(config))
    first = torchrun("train", str(tmp_path / "run.toml"))
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("6 steps in") == 1, "only rank 0 prints"
    single = train_config(make_config(data, tmp_path / "one", patches={"batch": 4, "accumulate": 2}, **TABLES))
    together = [entry["loss"] for entry in log_of(tmp_path / "two") if "loss" in entry]
    np.testing.assert_allclose(together, single.losses, atol=1e-5)
    one, two = (load_model_file(tmp_path / n / "model-last.safetensors").network for n in ("one", "two"))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    if not resume:
        return
    resumed = torchrun("train", str(tmp_path / "run.toml"), "--resume", "--set", "fit.steps=7")
    assert resumed.returncode == 0, resumed.stderr
    assert log_of(tmp_path / "two")[-1]["step"] == 7


def test_incomplete_torchrun_variables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with (
        pytest.raises(ConfigError, match="WORLD_SIZE, RANK and LOCAL_RANK must all be set .*; start with torchrun"),
        init_distributed("cpu"),
    ):
        pass


def test_a_single_process_needs_no_collectives() -> None:
    single = DistributedContext(0, 1, "cpu")
    network = nn.Conv2d(1, 1, 1)
    assert single.wrap(network) is network
    assert single.broadcast(0.25) == 0.25
    assert single.mean(torch.tensor(3.0)) == 3.0


@pytest.mark.parametrize(("device", "synchronised"), [("cuda:0", True), ("cpu", False)])
def test_batch_norms_are_synchronised_on_cuda(monkeypatch: pytest.MonkeyPatch, device: str, synchronised: bool) -> None:
    monkeypatch.setattr(volseg.training.distributed, "DistributedDataParallel", lambda network: network)
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    wrap = DistributedContext(0, 2, device).wrap(network)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in wrap.modules()) == synchronised
    assert list(map(id, wrap.parameters())) == list(map(id, network.parameters())), "the optimizer holds these"
