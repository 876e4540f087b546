"""What `predict --dry-run` says of memory, were the workers on this machine."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

import volseg
import volseg.prediction.dry_run
from volseg.cli.main import main
from volseg.config import PredictConfig, checked
from volseg.inference import WorkerInfo, worker_info
from volseg.prediction.dry_run import estimate_peak_memory
from volseg.prediction.prepare import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.prediction.prepare import RunSpec

HOST, GPU = "predicted_peak_bytes", "predicted_gpu_peak_bytes"


@pytest.fixture
def asked(raw: Path, small_model: Path, tmp_path: Path) -> list[str]:
    return ["predict", str(raw), str(tmp_path / "p.zarr"), "--model", str(small_model)]


def dry_run(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(main, [*arguments, "--dry-run", "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def test_a_dry_run_predicts_the_peak_that_a_worker_would(asked: list[str]) -> None:
    asked += ["--block", "2,32,32", "--cluster", "serial", "--precision", "float32"]
    told = dry_run(*asked, "--halo", "0,16,16")
    calibrated = dry_run(*asked, "--halo", "0,16,16", "--calibrate")
    assert (told[HOST], told[GPU]) == (calibrated[HOST], calibrated[GPU])
    assert told["peak_is"] == "of a worker that computes in float32 on CPU, with tiles of 1,32,32"
    # A halo that is still to be measured may be larger, a tile that is asked for is smaller.
    assert dry_run(*asked)[HOST] > told[HOST]
    assert dry_run(*asked, "--halo", "0,16,16", "--tile", "1,16,16")[HOST] < told[HOST]


@pytest.fixture
def begun(asked: list[str]) -> RunSpec:
    """A run on a CPU that is to go on, its tiles smaller than its blocks."""
    _, source, target, _, model = asked
    options: dict[str, Any] = {"block": (2, 32, 32), "cluster": "serial", "precision": "float32", "device": "cpu"}
    volseg.predict(source, target, model=model, **options, tile=(1, 16, 16))
    going_on = {"source": source, "target": target, "model": model, "cluster": "serial", "resume": True}
    return prepare(checked(PredictConfig, going_on, "predict"))


def test_a_run_that_goes_on_has_its_precision_tile_and_batch_already(begun: RunSpec) -> None:
    told = estimate_peak_memory(begun)
    assert told["peak_is"] == "of a worker that computes in float32 on CPU, with tiles of 1,16,16"
    assert begun.recorded is not None
    four = begun.recorded.model_copy(
        update={"models": tuple(each.model_copy(update={"batch": 4}) for each in begun.recorded.models)}
    )
    assert int(str(estimate_peak_memory(replace(begun, recorded=four))[HOST])) > int(str(told[HOST]))


def test_a_run_that_goes_on_keeps_its_device(begun: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[str] = []

    def facts_of(device: Any) -> WorkerInfo:
        looked_for.append(device)
        return worker_info(device)

    monkeypatch.setattr(volseg.prediction.dry_run, "worker_info", facts_of)
    estimate_peak_memory(begun)
    assert begun.config.device == "auto"
    assert looked_for == ["cpu"]


def test_a_dry_run_predicts_for_gpus_that_only_the_cluster_has(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    asked += ["--cluster", "tcp://login:8786"]
    on_gpu = dry_run(*asked, "--device", "cuda")
    assert on_gpu[GPU] > 0
    assert "in float16 on CUDA" in on_gpu["peak_is"]
    assert "in bfloat16 on CUDA" in dry_run(*asked, "--device", "cuda", "--precision", "bfloat16")["peak_is"]
    assert dry_run(*asked, "--device", "cpu")[GPU] == 0


@pytest.mark.parametrize(
    ("cluster", "fits"),
    [(("--workers", "64"), False), (("--cluster", "serial"), True), (("--cluster", "tcp://login:8786"), True)],
)
def test_a_dry_run_says_where_no_tile_would_fit(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, cluster: tuple[str, ...], fits: bool
) -> None:
    facts = replace(worker_info("cpu"), memory=256 << 20)
    monkeypatch.setattr(volseg.prediction.dry_run, "worker_info", lambda _: facts)
    told = dry_run(*asked, *cluster)
    assert (told[HOST] is not None) == fits
    assert ("too much for a worker on this machine: a worker would need" in told["peak_is"]) == (not fits)


@pytest.mark.parametrize(("gpus", "fits"), [(("0",), False), (("0", "1"), True)])
def test_workers_share_the_gpus_that_there_are(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, gpus: tuple[str, ...], fits: bool
) -> None:
    monkeypatch.setattr(volseg.prediction.dry_run, "visible_gpus", lambda _: ())
    needed = dry_run(*asked, "--device", "cuda", "--cluster", "tcp://login:8786")[GPU]
    facts = replace(worker_info("cpu"), device="cuda", device_memory=int(needed / 0.85) + 1)
    monkeypatch.setattr(volseg.prediction.dry_run, "visible_gpus", lambda _: gpus)
    monkeypatch.setattr(volseg.prediction.dry_run, "worker_info", lambda _: facts)
    told = dry_run(*asked, "--device", "cuda", "--workers", "2")
    assert (told[GPU] == needed) == fits
