"""The workflows run as they stand, on a stack of generated EM and for a few steps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from volseg.phantom import make_phantom
from volseg.runfiles import TrainConfig, as_toml, read_toml

WORKFLOWS = Path(__file__).parents[1] / "workflows"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "raw", "scored"), [("isbi2012", "train-volume", "5:6"), ("snemi3d", "train-input", "5:6")]
)
def test_the_whole_way(tmp_path: Path, name: str, raw: str, scored: str) -> None:
    folder = shutil.copytree(WORKFLOWS / name, tmp_path / name)
    phantom = make_phantom((6, 96, 96), seed=1)
    tifffile.imwrite(folder / f"{raw}.tif", phantom.raw, photometric="minisblack")
    labels = np.where(phantom.labels == 0, 0, 255).astype(np.uint8)
    tifffile.imwrite(folder / "train-labels.tif", labels, photometric="minisblack")
    short = ["data.train=[0,4]", "data.validation=[4,5]", "fit.steps=6", "validation.every=3"]
    small = ["network.arguments={ width = 2, depth = 2 }", "patches.size=64", "patches.workers=0"]
    run_file = as_toml(read_toml(folder / "train.toml", TrainConfig, [*short, *small]))
    (folder / "short.toml").write_text(run_file)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        **{"RUN": "short.toml", "SCORED": "5:6", "CLUSTER": "serial"},
    }
    for _ in range(2):  # the second time nothing is left to do
        done = subprocess.run(
            ["bash", str(folder / "run.sh")], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "6 steps" in done.stdout
        assert f"volseg view {folder}" in done.stdout
        assert {path.name for path in (folder / "scores").iterdir()} == {"scores.json", "thresholds.png"}
