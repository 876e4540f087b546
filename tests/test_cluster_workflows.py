"""Workflows of clusters run unchanged: a training on two nodes, which are processes here, and a map in a bucket."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import volseg
from tests.training.runs import log_of, make_config, make_stripes, train_config
from volseg.config import as_toml
from volseg.storage import target_path
from volseg.testing.object_servers import has_moto, moto_server

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


@pytest.mark.s3
@pytest.mark.slow
def test_a_map_from_a_bucket_to_a_bucket_has_the_values_of_a_local_one(
    raw: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_moto():
        pytest.skip("no moto_server; pip install 'moto[s3,server]' into an environment of its own, and set VOLSEG_MOTO")
    from urllib.request import Request, urlopen

    options = {"block": (2, 32, 32), "halo": (0, 8, 8), "tile": (1, 32, 32), "precision": "float32", "device": "cpu"}
    words = [word for name, value in options.items() for word in (f"--{name}", re.sub(r"[() ]", "", str(value)))]
    volseg.predict(str(raw), str(tmp_path / "m.zarr"), model=str(small_model), cluster="serial", **options)  # type: ignore[arg-type]
    write_program(tmp_path / "volseg", f'exec {sys.executable} -m volseg "$@"')
    with moto_server() as url:
        keys = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_REGION": "us-east-1"}  # fmt: skip
        for name, value in keys.items():
            monkeypatch.setenv(name, value)
        urlopen(Request(f"{url}/lab", method="PUT")).close()
        for path in sorted(raw.rglob("*")):
            if path.is_file():
                (target_path("s3://lab/raw.zarr") / path.relative_to(raw).as_posix()).write_bytes(path.read_bytes())
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(WORKFLOWS.parent),
                       "SOURCE": "s3://lab/raw.zarr", "TARGET": "s3://lab/m.zarr", "MODEL": str(small_model)}  # fmt: skip
        for _ in range(2):  # the second time, nothing is left to do
            done = subprocess.run(
                ["bash", str(WORKFLOWS / "bucket" / "predict.sh"), "--cluster", "serial", *words],
                env=environment, capture_output=True, text=True, timeout=250,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        local = {path.relative_to(tmp_path / "m.zarr").as_posix(): path.read_bytes()
                 for path in (tmp_path / "m.zarr" / "0" / "c").rglob("*") if path.is_file()}  # fmt: skip
        assert local
        for name, stored in local.items():
            assert (target_path("s3://lab/m.zarr") / name).read_bytes() == stored
