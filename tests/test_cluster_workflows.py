"""Workflows of clusters and buckets run unchanged, as far as one machine can be several."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
import tifffile

import volseg
from tests.test_workflows import SMALL
from volseg.config import TrainConfig, as_toml, read_toml
from volseg.phantom import make_phantom
from volseg.storage import ObjectPath, target_path
from volseg.testing.factories import make_volume, read_volume
from volseg.testing.object_servers import has_moto, moto_server

WORKFLOWS = Path(__file__).parents[1] / "workflows"
OPTIONS = ("--block", "1,32,32", "--halo", "0,8,8", "--precision", "float32", "--device", "cpu")
DATA = ('data.raw="train-volume.tif"', 'data.labels="train-labels.tif"', "data.voxel_nm=[50, 4, 4]", "data.train=[0,4]")
FAKES = """#!{python}
import os, subprocess, sys
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
if name == "scontrol":
    print("localhost")
elif name == "volseg":
    os.execv(sys.executable, [sys.executable, "-m", "volseg", *words])
elif name == "torchrun":
    os.execv(sys.executable, [sys.executable, "-m", "torch.distributed.run", *words])
else:  # srun: the command once for each node
    ends = [subprocess.Popen(words, env=os.environ | {{"OMP_NUM_THREADS": "1"}}) for _ in range(2)]
    sys.exit(max(end.wait() for end in ends))
"""


def fake_programs(folder: Path, *names: str) -> str:
    """A PATH on which some programs are those of one machine."""
    folder.mkdir()
    for name in names:
        (folder / name).write_text(FAKES.format(python=sys.executable))
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_training_on_two_nodes(tmp_path: Path) -> None:
    phantom = make_phantom((6, 96, 96), seed=1)
    tifffile.imwrite(tmp_path / "train-volume.tif", phantom.raw, photometric="minisblack")
    mask = np.where(phantom.labels == 0, 0, 255).astype(np.uint8)
    tifffile.imwrite(tmp_path / "train-labels.tif", mask, photometric="minisblack")
    run = as_toml(read_toml(WORKFLOWS / "isbi2012" / "first.toml", TrainConfig, [*SMALL, *DATA]))
    (tmp_path / "run.toml").write_text(run)
    script = tmp_path / "train.sbatch"
    text = (WORKFLOWS / "slurm" / "train.sbatch").read_text()
    assert text.count('source "$HOME/volseg/.venv/bin/activate"') == 1
    script.write_text(text.replace('source "$HOME/volseg/.venv/bin/activate"', ""))
    environment = {
        **os.environ, "PATH": fake_programs(tmp_path / "bin", "srun", "scontrol", "torchrun"), "SLURM_NNODES": "2",
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "node[1-2]", "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(WORKFLOWS.parent),
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(script)], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[:4000]
    assert done.stdout.count("6 steps") == 1, done.stdout  # of two processes, one tells


@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.skipif(not has_moto(), reason="no moto_server; install moto[s3,server] and set VOLSEG_MOTO")
def test_from_a_bucket_to_a_bucket(small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = make_volume(tmp_path / "raw.zarr", (2, 64, 96))
    options: dict[str, Any] = {"block": (1, 32, 32), "halo": (0, 8, 8), "precision": "float32", "device": "cpu"}
    with moto_server() as url:
        urlopen(Request(f"{url}/lab-bucket", method="PUT")).close()
        for key, value in {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "swordfish",
                           "AWS_REGION": "us-east-1"}.items():  # fmt: skip
            monkeypatch.setenv(key, value)
        environment = {
            **os.environ, "PATH": fake_programs(tmp_path / "bin", "volseg"), "BUCKET": "s3://lab-bucket/em",
            "RAW": str(raw), "MODEL": str(small_model), "CLUSTER": "serial", "PYTHONPATH": str(WORKFLOWS.parent),
        }  # fmt: skip
        for _ in range(2):  # the second time nothing is left to do
            done = subprocess.run(
                ["bash", str(WORKFLOWS / "bucket" / "run.sh"), *OPTIONS], env=environment, cwd=tmp_path,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert "swordfish" not in done.stdout + done.stderr
        volseg.predict(str(raw), str(tmp_path / "m.zarr"), model=str(small_model), cluster="serial", **options)
        place = target_path("s3://lab-bucket/em/membrane.zarr")
        assert isinstance(place, ObjectPath)
        stored = {entry.key.partition("membrane.zarr/")[2]: entry.key for entry in place.store.below(place.key)}
        local = [path for path in (tmp_path / "m.zarr").rglob("c/**/*") if path.is_file()]
        assert len(local) >= 12
        for path in local:
            name = str(path.relative_to(tmp_path / "m.zarr"))
            assert (place / name).read_bytes() == path.read_bytes(), name
            assert name in stored
        assert read_volume(tmp_path / "m.zarr").any()
