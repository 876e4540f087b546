"""The workflows run unchanged, on generated EM and for a few steps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from volseg.config import TrainConfig, as_toml, read_toml
from volseg.phantom import make_phantom

WORKFLOWS = Path(__file__).parents[1] / "workflows"


SMALL = ("network.arguments={ width = 2, depth = 2 }", "patches.size=64", "patches.workers=0", "fit.steps=6")
"""Overrides that shorten a training."""


def shortened(folder: Path, name: str, *changes: str) -> str:
    """Write a run file with few steps; return its name."""
    short = folder / f"short-{name}"
    short.write_text(as_toml(read_toml(folder / name, TrainConfig, [*SMALL, "validation.every=3", *changes])))
    return short.name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["isbi2012", "snemi3d"])
def test_a_workflow_runs_and_runs_again(tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(WORKFLOWS / name, tmp_path / name)
    phantom = make_phantom((6, 96, 96), seed=1)
    for stack in ("train-volume", "test-volume") if name == "isbi2012" else ("train-input",):
        tifffile.imwrite(folder / f"{stack}.tif", phantom.raw, photometric="minisblack")
    mask = np.where(phantom.labels == 0, 0, 255).astype(np.uint8)
    labels = mask if name == "isbi2012" else phantom.labels.astype(np.uint16)
    tifffile.imwrite(folder / "train-labels.tif", labels, photometric="minisblack")
    if name == "isbi2012":
        first = shortened(folder, "first.toml", "data.train=[0,4]")
        # A network of a few steps is not confident anywhere.
        more = ("data.0.train=[0,4]", "data.1.train=[0,4]", "data.1.probability_thresholds=[0.4999, 0.5]")
        files = {"FIRST": first, "RUN": shortened(folder, "train.toml", *more)}
    else:
        files = {"RUN": shortened(folder, "train.toml", "data.train=[0,4]", "data.validation=[4,5]")}
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        **files,
        **{"SCORED": "5:6", "CLUSTER": "serial"},
    }
    for _ in range(2):  # the second time, nothing is left to do
        done = subprocess.run(
            ["bash", str(folder / "run.sh")], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "6 steps" in done.stdout
        assert f"volseg view {folder}" in done.stdout
        assert {path.name for path in (folder / "scores").iterdir()} == {"scores.json", "thresholds.png"}
