"""Training runs: losses fall for all settings, the best step is saved, and results are reported."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import volseg.training.trainer
import volseg.training.validation
from tests.training.runs import RecordingReporter, log_of, make_config, make_stripes, train_config
from volseg.config.train_tables import TrainingSettings
from volseg.errors import ConfigError, MemoryPlanError, ModelError, TrainingError
from volseg.evaluation.metrics import PixelScores
from volseg.inference.hardware import worker_info
from volseg.models.model import load_model_file
from volseg.testing.factories import make_volume
from volseg.training.checkpoint import read_checkpoint
from volseg.training.data.patches import PatchDataset
from volseg.training.distributed import DistributedContext
from volseg.training.run import train
from volseg.training.trainer import patch_indices
from volseg.training.validation import ValidationResult, Validator

if TYPE_CHECKING:
    from pathlib import Path


SOLID = {"width": 4, "depth": 1, "padded": True, "kernel": [3, 3, 3], "pool": [1, 2, 2]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stripes(tmp_path_factory.mktemp("stripes"))


def test_the_loss_falls_and_the_card_records_the_training(data: Path, tmp_path: Path) -> None:
    reporter = RecordingReporter()
    config = make_config(data, tmp_path, fit={"steps": 60}, optimizer={"ema_decay": 0.9}, data={"license": "test data"})
    trained = train(config, reporter)
    assert np.mean(trained.losses[-10:]) < 0.5 * np.mean(trained.losses[:3])
    assert trained.best is not None
    assert trained.best.best_f1 > 0.9
    assert (trained.steps, trained.finished) == (60, True)
    assert [step for step, *_ in reporter.steps] == list(range(1, 61))
    assert reporter.steps[-1][2] == 1.0
    assert [note.partition(":")[0] for note in reporter.notes] == ["step 20", "step 40", "step 60"]
    assert trained.card.training["steps"] == 60
    assert trained.card.training["validation_f1"] == round(trained.best.best_f1, 4)
    assert trained.card.voxel_nm == (30.0, 6.0, 6.0)
    assert trained.card.license == "test data"
    assert not trained.network.training


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [
        ("unet", {"width": 4, "depth": 1}, [1, 32, 32]),
        ("unet", {"width": 4, "depth": 1, "padded": True, "in_channels": 3}, [1, 32, 32]),
        ("unet", SOLID, [3, 32, 32]),
        ("fusionnet", {"width": 4, "depth": 1, "kernel": [[1, 3, 3], [3, 3, 3]], "pool": [1, 2, 2]}, [2, 32, 32]),
        ("fusionnet_chain", {"width": 4, "depth": 1}, [1, 32, 32]),
        ("fcn8s", {"width": 4, "padded": True, "dropout": 0.0}, [1, 32, 32]),
        ("sliding_window", {"width": 8, "hidden": 16, "window": 65}, [1, 32, 32]),
    ],
)
def test_every_kind_of_network_trains(data: Path, tmp_path: Path, name: str, arguments: Any, size: list[int]) -> None:
    config = make_config(
        data,
        tmp_path,
        network={"name": name, "arguments": arguments},
        patches={"size": size},
        optimizer={"learning_rate": 3e-3},
        fit={"steps": 24},
        validation={"every": 24},
    )
    trained = train_config(config)
    assert trained.best is not None
    assert np.mean(trained.losses[-5:]) < np.mean(trained.losses[:3])


@pytest.mark.parametrize("loss", ["balanced", "dice", "focal", "mean_absolute", "weight_map"])
@pytest.mark.parametrize("name", ["fusionnet", "unet"])
def test_every_loss_is_reduced(data: Path, tmp_path: Path, loss: str, name: str) -> None:
    table = {"weight_map": True} if loss == "weight_map" else {"name": loss}
    network = {"name": name, "arguments": {"width": 4, "depth": 1}}
    trained = train_config(
        make_config(data, tmp_path, loss=table, network=network, fit={"steps": 16}, validation={"every": 16})
    )
    assert np.mean(trained.losses[-4:]) < np.mean(trained.losses[:4])


def test_the_loss_falls_with_all_augmentations(data: Path, tmp_path: Path) -> None:
    defects = dict.fromkeys(["missing", "shading", "fold", "misalignment", "defocus"], 0.2)
    table = {"elastic": "field", "noise": 0.1, "blur": 1.0, "elastic_std": 2.0, **defects}
    network = {"name": "unet", "arguments": {"width": 4, "depth": 1, "padded": True, "in_channels": 3}}
    trained = train_config(make_config(data, tmp_path, augmentation=table, network=network, fit={"steps": 40}))
    assert np.mean(trained.losses[-10:]) < 0.8 * np.mean(trained.losses[:3])


def test_affinities_are_trained_and_validated(tmp_path: Path) -> None:
    ids = np.arange(1, 1 + 6 * 12 * 12).reshape(6, 12, 12).repeat(8, 1).repeat(8, 2).astype(np.uint16)
    raw = np.where((ids + ids // 12) % 2, 60, 180).astype(np.uint8)
    make_volume(tmp_path / "raw.zarr", raw.shape, voxels=raw)
    make_volume(tmp_path / "labels.zarr", raw.shape, voxels=ids)
    config = make_config(
        tmp_path,
        tmp_path / "runs",
        network={"name": "unet", "arguments": SOLID},
        patches={"size": [2, 32, 32]},
        target={"kind": "affinities"},
        fit={"steps": 40},
        validation={"score": "average_precision"},
    )
    trained = train_config(config)
    assert trained.card.classes == ("affinity_z-1", "affinity_y-1", "affinity_x-1")
    assert trained.best is not None
    assert trained.best.best_f1 > 0.6


def test_affinities_to_other_sections_need_a_3d_network(tmp_path: Path) -> None:
    labels = np.arange(6 * 96 * 96).reshape(6, 96, 96).astype(np.uint32) // 64
    make_volume(tmp_path / "raw.zarr", labels.shape)
    make_volume(tmp_path / "labels.zarr", labels.shape, voxels=labels)
    with pytest.raises(ConfigError, match=r"target.offsets .* relate sections, .*3-D kernel"):
        train_config(make_config(tmp_path, tmp_path / "runs", target={"kind": "affinities"}))


def test_losses_depend_on_the_seed_and_not_on_the_workers(data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    losses = [
        train_config(
            make_config(data, tmp_path / str(n), fit={"steps": 4, "seed": seed}, patches={"workers": workers})
        ).losses
        for n, (seed, workers) in enumerate([(3, 0), (3, 1), (4, 0)])
    ]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def fake_scores(monkeypatch: pytest.MonkeyPatch, *f1: float) -> None:
    """Replace the scores of the validations of a training."""
    scores = iter(f1)

    def validate(self: Validator, model: Any, step: int, best_value: float | None) -> ValidationResult:
        pixels = PixelScores(0.5, 0, 0, 0, 0, next(scores), 0.5, 0, 0.2)
        best = best_value is None or pixels.best_f1 > best_value
        return ValidationResult(step, pixels, None, pixels.best_f1, best, [("raw", np.zeros((8, 8), np.uint8))])

    monkeypatch.setattr(Validator, "validate", validate)


def test_the_best_and_the_last_model_are_saved(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_scores(monkeypatch, 0.5, 0.9, 0.7)
    trained = train_config(make_config(data, tmp_path, fit={"steps": 30}, validation={"every": 10}))
    assert [entry["best"] for entry in log_of(tmp_path) if "best" in entry] == [True, True, False]
    assert trained.best is not None
    assert trained.best.best_f1 == 0.9
    best, last = (load_model_file(tmp_path / f"{name}.safetensors") for name in ("model", "model-last"))
    assert (best.card.training["best_step"], best.card.training["steps"]) == (20, 20)
    assert (last.card.training["best_step"], last.card.training["steps"]) == (20, 30)
    best_weights, last_weights = best.network.state_dict(), last.network.state_dict()
    assert any(not torch.equal(best_weights[name], last_weights[name]) for name in best_weights)
    assert all(torch.equal(last_weights[name], tensor) for name, tensor in trained.network.state_dict().items())


def test_a_validation_is_the_best_if_its_score_exceeds_all_previous_ones(data: Path, tmp_path: Path) -> None:
    train_config(
        make_config(data, tmp_path, fit={"steps": 14}, optimizer={"learning_rate": 0.3}, validation={"every": 2})
    )
    results = [(entry["validation_f1"], entry["best"]) for entry in log_of(tmp_path) if "best" in entry]
    assert {best for _, best in results} == {True, False}
    for at, (score, best) in enumerate(results):
        assert best == all(score > before for before, _ in results[:at])


def test_training_stops_early_without_improvement(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_scores(monkeypatch, 0.5, 0.4, 0.6, 0.6, 0.5, 0.9)
    trained = train_config(make_config(data, tmp_path, fit={"steps": 100}, validation={"every": 2, "patience": 2}))
    assert trained.finished
    assert trained.steps == 10


def test_minutes_end_a_training(data: Path, tmp_path: Path) -> None:
    trained = train_config(make_config(data, tmp_path, fit={"steps": 10**6, "minutes": 0.03}))
    assert 1 < trained.steps < 10**6
    assert trained.finished
    assert log_of(tmp_path)[-1]["step"] == trained.steps
    assert "validation_f1" in log_of(tmp_path)[-1]


def test_the_learning_rate_follows_the_schedule(data: Path, tmp_path: Path) -> None:
    train_config(make_config(data, tmp_path, fit={"steps": 60}, schedule={"warm_up": 0.05}, validation={"every": 60}))
    rates = [entry["learning_rate"] for entry in log_of(tmp_path) if "loss" in entry]
    assert rates[0] < 0.2 * max(rates)
    assert max(rates) == pytest.approx(1e-2, rel=0.05)
    assert rates[-1] < 0.01 * max(rates)


def test_accumulated_batches_equal_one_batch(data: Path, tmp_path: Path) -> None:
    network = {"name": "unet", "arguments": {"width": 4, "depth": 1}}
    whole = train_config(make_config(data, tmp_path / "a", network=network, patches={"batch": 4}))
    parts = train_config(make_config(data, tmp_path / "b", network=network, patches={"batch": 2, "accumulate": 2}))
    np.testing.assert_allclose(whole.losses, parts.losses, rtol=1e-4)


def test_processes_divide_the_patches_of_a_step() -> None:
    settings = TrainingSettings.model_validate(
        {"data": {"raw": "r", "labels": "l", "train": [0, 1]}, "patches": {"batch": 2, "accumulate": 2}}
    )
    indices_by_rank = []
    for rank in (0, 1):
        numbers = patch_indices(settings, DistributedContext(rank, 2, "cpu"), steps_done=3)
        indices_by_rank.append([next(numbers) for _ in range(4)])
    assert indices_by_rank == [[24, 25, 28, 29], [26, 27, 30, 31]]
    single = patch_indices(settings, DistributedContext(0, 1, "cpu"), steps_done=3)
    assert [next(single) for _ in range(4)] == [12, 13, 14, 15]


def test_weights_of_a_model_can_be_fine_tuned(data: Path, tmp_path: Path) -> None:
    train_config(make_config(data, tmp_path / "first", fit={"steps": 60}, validation={"every": 60}))
    start = str(tmp_path / "first" / "model.safetensors")
    fresh = train_config(make_config(data, tmp_path / "fresh", fit={"steps": 3}))
    tuned = train_config(
        make_config(
            data, tmp_path / "tuned", fit={"steps": 3}, network={"arguments": {"width": 4, "depth": 1}, "start": start}
        )
    )
    assert tuned.losses[0] < 0.6 * fresh.losses[0]
    other = {"arguments": {"width": 6, "depth": 1}, "start": start}
    with pytest.raises(ConfigError, match=r"network.start .* is fusionnet .*'width': 4.*use the same name"):
        train_config(make_config(data, tmp_path / "other", network=other))


def test_a_loss_that_is_not_finite_stops_and_the_saved_weights_stay(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        volseg.training.trainer, "learning_rate_factor", lambda progress, settings: math.inf if progress > 0.2 else 1.0
    )
    config = make_config(data, tmp_path, validation={"every": 3})
    with pytest.raises(TrainingError, match=r"(nan|inf|infinite) at step \d; lower optimizer.learning_rate.* intact"):
        train_config(config)
    weights = load_model_file(tmp_path / "model.safetensors").network.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert read_checkpoint(tmp_path / "checkpoint.safetensors").metadata["step"] == 3


def test_too_few_values_for_batch_norm_is_a_one_line_error(data: Path, tmp_path: Path) -> None:
    config = make_config(data, tmp_path, network={"arguments": {"width": 2, "depth": 5}}, patches={"batch": 1})
    with pytest.raises(ConfigError, match=r"leaves one value per channel .*; raise patches.batch or patches.size"):
        train_config(config)


def test_a_3d_network_with_channels_is_refused(data: Path, tmp_path: Path) -> None:
    arguments = {"width": 2, "depth": 1, "in_channels": 3, "kernel": [3, 3, 3], "pool": [1, 2, 2]}
    with pytest.raises(ModelError, match="a 3-D network must have one input channel, not 3"):
        train_config(make_config(data, tmp_path, network={"arguments": arguments}))


def test_deterministic_algorithms_are_used_during_the_training_only(data: Path, tmp_path: Path) -> None:
    class CheckingReporter(RecordingReporter):
        def step(self, step: int, loss: float, progress: float, wait_fraction: float) -> None:
            assert torch.are_deterministic_algorithms_enabled()
            super().step(step, loss, progress, wait_fraction)

    reporter = CheckingReporter()
    train(make_config(data, tmp_path, fit={"steps": 2, "deterministic": True}), reporter)
    assert len(reporter.steps) == 2
    assert not torch.are_deterministic_algorithms_enabled()


def test_gradients_are_clipped_unless_clip_is_0(data: Path, tmp_path: Path) -> None:
    sgd = {"name": "sgd", "momentum": 0.0, "learning_rate": 1.0, "weight_decay": 0.0}
    fit = {"steps": 1}
    clipped = train_config(
        make_config(data, tmp_path / "a", optimizer={**sgd, "clip": 1e-3}, fit=fit, schedule={"warm_up": 0})
    )
    free = train_config(
        make_config(data, tmp_path / "b", optimizer={**sgd, "clip": 0}, fit=fit, schedule={"warm_up": 0})
    )
    initial = train_config(make_config(data, tmp_path / "c", optimizer={**sgd, "learning_rate": 1e-30}, fit=fit))

    def distance(trained: Any) -> float:
        pairs = zip(trained.network.parameters(), initial.network.parameters(), strict=True)
        return float(torch.sqrt(sum(((a - b) ** 2).sum() for a, b in pairs)))

    assert distance(clipped) == pytest.approx(1e-3, rel=0.01)
    assert distance(free) > 0.01


def test_fine_tuning_compares_networks_not_their_arguments(data: Path, tmp_path: Path) -> None:
    train_config(make_config(data, tmp_path / "first", fit={"steps": 1}))
    start = str(tmp_path / "first" / "model.safetensors")
    arguments = {"width": 4, "depth": 1, "in_channels": 1, "kernel": [3, 3]}
    assert (
        train_config(
            make_config(data, tmp_path / "b", network={"arguments": arguments, "start": start}, fit={"steps": 1})
        ).steps
        == 1
    )


def test_waiting_time_is_logged_in_seconds_and_reported_as_a_fraction(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    getitem = PatchDataset.__getitem__

    def slow_getitem(self: PatchDataset, index: int) -> Any:
        time.sleep(0.05)
        return getitem(self, index)

    monkeypatch.setattr(PatchDataset, "__getitem__", slow_getitem)
    reporter = RecordingReporter()
    train(make_config(data, tmp_path, fit={"steps": 5}), reporter)
    steps = [entry for entry in log_of(tmp_path) if "loss" in entry]
    assert all(0 <= entry["waited"] <= entry["seconds"] for entry in steps)
    assert steps[-1]["waited"] - steps[0]["waited"] > 4 * 4 * 0.05
    assert steps[0]["waited"] == 0, "the start of the workers is not counted"
    assert [waited for *_, waited in reporter.steps] == [
        pytest.approx(entry["waited"] / entry["seconds"], abs=0.02) for entry in steps
    ]


def test_offsets_longer_than_a_patch_are_refused(tmp_path: Path) -> None:
    ids = np.arange(6 * 12 * 12).reshape(6, 12, 12).repeat(8, 1).repeat(8, 2).astype(np.uint16)
    make_volume(tmp_path / "raw.zarr", ids.shape)
    make_volume(tmp_path / "labels.zarr", ids.shape, voxels=ids)
    tables: dict[str, Any] = {"network": {"name": "unet", "arguments": SOLID}, "patches": {"size": [2, 32, 32]}}
    far = {"kind": "affinities", "offsets": [[-2, 0, 0]]}
    with pytest.raises(ConfigError, match=r"target.offsets \[-2, 0, 0\] does not fit into the \[2, .* of patches.size"):
        train_config(make_config(tmp_path, tmp_path / "a", target=far, **tables))
    one_section = {"validation": [5, 6]}
    with pytest.raises(ConfigError, match=r"does not fit into the \[1, 96, 96\] voxels of data.validation"):
        train_config(make_config(tmp_path, tmp_path / "b", target={"kind": "affinities"}, data=one_section, **tables))


def test_validation_that_does_not_fit_is_refused_before_the_first_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = replace(worker_info("cpu"), memory=20 << 20)
    monkeypatch.setattr(volseg.training.validation, "worker_info", lambda device: worker)
    with pytest.raises(
        TrainingError, match=r"validation on sections of \(2, 96, 96\) does not fit in memory .*use fewer"
    ):
        train_config(make_config(data, tmp_path))
    assert not any(tmp_path.iterdir())


def test_a_validation_that_fails_leaves_a_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> ValidationResult:
        raise MemoryPlanError("no memory now")

    monkeypatch.setattr(Validator, "validate", fails)
    with pytest.raises(MemoryPlanError, match="no memory now"):
        train_config(make_config(data, tmp_path, fit={"steps": 4}, validation={"every": 2}))
    assert read_checkpoint(tmp_path / "checkpoint.safetensors").metadata["step"] == 2


def test_work_before_the_first_step_can_be_stopped(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"stopped before the first step, at grey values of section 4 of 4"):
        train_config(make_config(data, tmp_path), stop_after=0)
