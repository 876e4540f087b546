"""Workflows of clusters run unchanged: a training on two nodes, which are processes here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.training.runs import log_of, make_config, make_stripes, train_config
from volseg.config import as_toml

WORKFLOWS = Path(__file__).parents[1] / "workflows"
BIN = Path(sys.executable).parent


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


@pytest.mark.slow
def test_a_training_on_two_nodes_equals_one_with_twice_the_batch(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    write_program(programs / "srun", 'shift; "$@" & first=$!; "$@" & second=$!; wait $first && wait $second')
    write_program(programs / "scontrol", "echo localhost; echo localhost")
    write_program(programs / "torchrun", f'exec {sys.executable} -m torch.distributed.run --local-addr localhost "$@"')
    network = {"name": "unet", "arguments": {"width": 4, "depth": 1, "padded": True, "dropout": 0.0}}
    data = make_stripes(tmp_path)
    config = make_config(data, tmp_path / "two", network=network, patches={"batch": 2}, fit={"steps": 4})
    (tmp_path / "run.toml").write_text(as_toml(config))
    text = (WORKFLOWS / "slurm" / "train.sbatch").read_text()
    text = re.sub(r"^RUN=\S+", f"RUN={tmp_path}/run.toml", text, flags=re.MULTILINE).replace("source ", ": ")
    (tmp_path / "train.sbatch").write_text(text)
    environment = {**os.environ, "PATH": f"{programs}:{BIN}:{os.environ['PATH']}",
                   "PYTHONPATH": str(WORKFLOWS.parent), "SLURM_JOB_ID": str(os.getpid()), "SLURM_NNODES": "2",
                   "SLURM_JOB_NODELIST": "node[1-2]"}  # fmt: skip
    done = subprocess.run(
        ["bash", str(tmp_path / "train.sbatch")], env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("4 steps in") == 1, "only rank 0 prints"
    single = train_config(make_config(data, tmp_path / "one", network=network, patches={"batch": 4}, fit={"steps": 4}))
    together = [entry["loss"] for entry in log_of(tmp_path / "two") if "loss" in entry]
    np.testing.assert_allclose(together, single.losses, atol=1e-5)


def test_the_training_script_requeues_after_a_signal_and_not_after_an_error() -> None:
    """Its end, with programs that write down how they are called."""
    text = (WORKFLOWS / "slurm" / "train.sbatch").read_text()
    end = text[text.index("training=$!") :]
    fakes = 'scancel() { echo "scancel $*"; kill "$training"; }; scontrol() { echo "scontrol $*"; }\nSLURM_JOB_ID=7\n'
    for before, after, lines, code in (
        ("sleep 30 &", "kill -USR1 $$", ["scancel --signal=TERM 7.0", "scontrol requeue 7"], 143),
        ("(exit 1) &", "", [], 1),
        ("(exit 0) &", "", [], 0),
    ):
        script = fakes + before + "\n" + end.replace("signalled=\n", f"signalled=\n(sleep 0.2; {after or ':'}) &\n", 1)
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
        assert (done.stdout.splitlines(), done.returncode) == (lines, code), done.stderr
