"""Commands read N5 and precomputed volumes themselves, as they read the same voxels in OME-Zarr."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

import volseg
from tests.training.runs import RecordingReporter, make_config, make_stripes
from volseg.cli.main import main
from volseg.storage import open_volume
from volseg.testing.factories import blobs, make_volume, read_volume
from volseg.training.run import train

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("tensorstore", reason='needs tensorstore: pip install "volseg[formats]"')
OTHERS = ("raw.n5", "raw.precomputed")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_predict_reads_them(small_model: Path, tmp_path: Path) -> None:
    make_volume(tmp_path / "raw.zarr", (2, 40, 44), translation_nm=(60.0, 12.0, 18.0))
    maps = {}
    for name in ("raw.zarr", *OTHERS):
        if name != "raw.zarr":
            volseg.convert(tmp_path / "raw.zarr", tmp_path / name, cluster="serial")
        maps[name] = tmp_path / f"map-{name}"
        run("predict", str(tmp_path / name), str(maps[name]), "--model", str(small_model), "--halo", "0,8,8",
            "--precision", "float32", "--cluster", "serial")  # fmt: skip
    for name in OTHERS:
        np.testing.assert_array_equal(read_volume(maps[name]), read_volume(maps["raw.zarr"]))
        place = open_volume(str(maps[name])).place
        assert (place.voxel_nm, place.translation_nm) == ((30.0, 6.0, 6.0), (60.0, 12.0, 18.0))


@pytest.mark.parametrize("name", OTHERS)
def test_evaluate_reads_map_and_truth(name: str, tmp_path: Path) -> None:
    probability = blobs((2, 40, 44))
    make_volume(tmp_path / "map.zarr", probability.shape, voxels=probability)
    make_volume(tmp_path / "truth.zarr", probability.shape, voxels=(blobs(probability.shape, 1) < 128).astype(np.uint8))
    for kind in ("map", "truth"):
        volseg.convert(tmp_path / f"{kind}.zarr", tmp_path / f"{kind}-{name}", cluster="serial")
    scores = [
        json.loads(run("evaluate", *(str(tmp_path / one) for one in pair), "--json"))
        for pair in (("map.zarr", "truth.zarr"), (f"map-{name}", f"truth-{name}"))
    ]
    assert scores[0]["f1"] == scores[1]["f1"] > 0


def test_train_reads_raw_and_labels(tmp_path: Path) -> None:
    make_stripes(tmp_path)
    volumes = [("raw.zarr", "labels.zarr"), ("raw.n5", "labels.precomputed")]
    losses = []
    for raw, labels in volumes:
        for name in (raw, labels):
            if not name.endswith(".zarr"):
                volseg.convert(tmp_path / f"{name.partition('.')[0]}.zarr", tmp_path / name, cluster="serial")
        data = {"raw": str(tmp_path / raw), "labels": str(tmp_path / labels)}
        reporter = RecordingReporter()
        train(make_config(tmp_path, tmp_path / f"run-{raw}", data=data, fit={"steps": 2}), reporter)
        losses.append([loss for _, loss, _, _ in reporter.steps])
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2
