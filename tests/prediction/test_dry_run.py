"""The memory that `predict --dry-run` predicts for a worker on this machine."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

import volseg
import volseg.prediction.dry_run
from volseg.cli.main import main
from volseg.config import PredictConfig, validate
from volseg.inference import WorkerInfo, worker_info
from volseg.prediction.dry_run import estimate_peak_memory
from volseg.prediction.prepare import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.prediction.prepare import RunSpec
    from volseg.storage import RunRecord

HOST, GPU = "predicted_peak_bytes", "predicted_gpu_peak_bytes"


@pytest.fixture
def arguments(raw: Path, small_model: Path, tmp_path: Path) -> list[str]:
    return ["predict", str(raw), str(tmp_path / "p.zarr"), "--model", str(small_model)]


def dry_run(*command: str) -> dict[str, Any]:
    result = CliRunner().invoke(main, [*command, "--dry-run", "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    estimate: dict[str, Any] = json.loads(result.stdout)
    return estimate


def test_a_dry_run_predicts_the_peak_that_a_worker_would(arguments: list[str]) -> None:
    arguments += ["--block", "2,32,32", "--cluster", "serial", "--precision", "float32"]
    estimate = dry_run(*arguments, "--halo", "0,16,16")
    calibrated = dry_run(*arguments, "--halo", "0,16,16", "--calibrate")
    assert (estimate[HOST], estimate[GPU]) == (calibrated[HOST], calibrated[GPU])
    assert estimate["peak_is"] == "of a worker that computes in float32 on CPU, with tiles of 1,32,32"
    # A halo that is still to be measured may be larger, a tile that is arguments for is smaller.
    assert dry_run(*arguments)[HOST] > estimate[HOST]
    assert dry_run(*arguments, "--halo", "0,16,16", "--tile", "1,16,16")[HOST] < estimate[HOST]


@pytest.fixture
def resumed(arguments: list[str]) -> tuple[RunSpec, RunRecord]:
    """A run on a CPU to resume, its tiles smaller than its blocks."""
    _, source, target, _, model = arguments
    options: dict[str, Any] = {"block": (2, 32, 32), "cluster": "serial", "precision": "float32", "device": "cpu"}
    volseg.predict(source, target, model=model, **options, tile=(1, 16, 16))
    values = {"source": source, "target": target, "model": model, "cluster": "serial", "resume": True}
    spec, recorded = prepare(validate(PredictConfig, values, "predict"))
    assert recorded is not None
    return spec, recorded


def test_a_resumed_run_keeps_its_precision_tile_and_batch(resumed: tuple[RunSpec, RunRecord]) -> None:
    spec, recorded = resumed
    peak = estimate_peak_memory(spec, recorded)
    assert peak.peak_is == "of a worker that computes in float32 on CPU, with tiles of 1,16,16"
    larger = recorded.model_copy(
        update={"models": tuple(entry.model_copy(update={"batch": 4}) for entry in recorded.models)}
    )
    assert peak.predicted_peak_bytes is not None
    assert (estimate_peak_memory(spec, larger).predicted_peak_bytes or 0) > peak.predicted_peak_bytes


def test_a_resumed_run_keeps_its_device(resumed: tuple[RunSpec, RunRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    spec, recorded = resumed
    devices: list[str] = []

    def record_device(device: Any) -> WorkerInfo:
        devices.append(device)
        return worker_info(device)

    monkeypatch.setattr(volseg.prediction.dry_run, "worker_info", record_device)
    estimate_peak_memory(spec, recorded)
    assert spec.device == "auto"
    assert devices == ["cpu"]


def test_a_dry_run_predicts_for_gpus_that_only_the_cluster_has(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    arguments += ["--cluster", "tcp://login:8786"]
    on_gpu = dry_run(*arguments, "--device", "cuda")
    assert on_gpu[GPU] > 0
    assert "in float16 on CUDA" in on_gpu["peak_is"]
    assert "in bfloat16 on CUDA" in dry_run(*arguments, "--device", "cuda", "--precision", "bfloat16")["peak_is"]
    assert dry_run(*arguments, "--device", "cpu")[GPU] == 0


@pytest.mark.parametrize(
    ("cluster", "fits"),
    [(("--workers", "64"), False), (("--cluster", "serial"), True), (("--cluster", "tcp://login:8786"), True)],
)
def test_a_dry_run_says_that_no_tile_fits(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, cluster: tuple[str, ...], fits: bool
) -> None:
    worker = replace(worker_info("cpu"), memory=256 << 20)
    monkeypatch.setattr(volseg.prediction.dry_run, "worker_info", lambda _: worker)
    estimate = dry_run(*arguments, *cluster)
    assert (estimate[HOST] is not None) == fits
    assert ("too much for a worker on this machine: a worker would need" in estimate["peak_is"]) == (not fits)


@pytest.mark.parametrize(("gpus", "fits"), [(("0",), False), (("0", "1"), True)])
def test_workers_share_the_gpus(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, gpus: tuple[str, ...], fits: bool
) -> None:
    monkeypatch.setattr(volseg.prediction.dry_run, "visible_gpus", lambda _: ())
    needed = dry_run(*arguments, "--device", "cuda", "--cluster", "tcp://login:8786")[GPU]
    worker = replace(worker_info("cpu"), device="cuda", device_memory=int(needed / 0.85) + 1)
    monkeypatch.setattr(volseg.prediction.dry_run, "visible_gpus", lambda _: gpus)
    monkeypatch.setattr(volseg.prediction.dry_run, "worker_info", lambda _: worker)
    estimate = dry_run(*arguments, "--device", "cuda", "--workers", "2")
    assert (estimate[GPU] == needed) == fits
