"""The loop learns, keeps its best step, and stops with one line when it cannot go on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from volseg.errors import ModelError, TrainingError
from volseg.evaluation import PixelScores
from volseg.training import FitSettings, LabelledVolume, NetworkSettings
from volseg.training import loop as loop_module
from volseg.training.loop import Trained, cross_entropy, fit


def stripes(seed: int, shape: tuple[int, int, int] = (4, 96, 96)) -> LabelledVolume:
    """Dark curved lines on noise: a membrane that a small network learns in seconds."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=shape), (0, 8, 8))
    membrane = np.abs(field) < 0.25 * field.std()
    raw = np.where(membrane, 70, 150) + rng.normal(size=shape) * 15
    return LabelledVolume(np.clip(raw, 1, 255).astype(np.uint8), membrane, (30.0, 6.0, 6.0))


SOLID = {"kernel": [[1, 3, 3], [3, 3, 3]], "pool": [1, 2, 2]}


class Watch:
    def __init__(self) -> None:
        self.steps: list[tuple[int, float, float, float]] = []
        self.validations: list[tuple[int, PixelScores, bool]] = []

    def step(self, step: int, loss: float, learning_rate: float, share: float) -> None:
        self.steps.append((step, loss, learning_rate, share))

    def validated(self, step: int, scores: PixelScores, probability: np.ndarray, *, best: bool) -> None:
        assert probability.shape == (4, 96, 96)
        assert 0 <= probability.min() <= probability.max() <= 1
        self.validations.append((step, scores, best))


def learn(
    steps: int, seed: int = 0, name: str = "fusionnet", arguments: dict[str, Any] | None = None, **more: Any
) -> tuple[Trained, Watch]:
    watch = Watch()
    network = NetworkSettings(name=name, arguments=arguments or {"width": 4, "depth": 1})
    values: dict[str, Any] = {"validate_every": 20, "precision": "float32", "patch": 32, "learning_rate": 1e-2}
    settings = FitSettings(steps=steps, seed=seed, **(values | more))
    trained = fit(stripes(1), stripes(2), network, settings, watch, {"name": "test", "license": "none"})
    return trained, watch


def test_the_loop_learns_and_the_card_says_how() -> None:
    trained, watch = learn(60)
    assert np.mean(trained.losses[-10:]) < 0.5 * np.mean(trained.losses[:3])
    assert trained.best is not None
    assert trained.best.best_f1 > 0.9
    assert [step for step, *_ in watch.steps] == list(range(1, 61))
    assert [step for step, *_ in watch.validations] == [20, 40, 60]
    assert trained.card.training["steps"] == 60
    assert trained.card.training["validation_f1"] == round(trained.best.best_f1, 4)
    assert trained.card.voxel_nm == (30.0, 6.0, 6.0)
    assert not trained.network.training


@pytest.mark.parametrize(
    ("name", "arguments", "more"),
    [
        ("unet", {"width": 4, "depth": 1}, {}),
        ("unet", {"width": 4, "depth": 1, "padded": True, "in_channels": 3}, {}),
        (
            "unet",
            {"width": 4, "depth": 1, "padded": True, "kernel": [3, 3, 3], "pool": [1, 2, 2]},
            {"patch_sections": 3},
        ),
        (
            "fusionnet",
            {"width": 4, "depth": 1, "kernel": [[1, 3, 3], [3, 3, 3]], "pool": [1, 2, 2]},
            {"patch_sections": 2},
        ),
        ("fusionnet_chain", {"width": 4, "depth": 1}, {}),
        ("fcn8s", {"width": 4, "padded": True, "dropout": 0.0}, {}),
        ("sliding_window", {"width": 8, "hidden": 16, "window": 65}, {}),
    ],
)
def test_every_kind_of_network_trains(name: str, arguments: dict[str, Any], more: dict[str, Any]) -> None:
    trained, watch = learn(24, name=name, arguments=arguments, learning_rate=3e-3, **more)
    assert watch.validations
    assert np.mean(trained.losses[-5:]) < np.mean(trained.losses[:3])


def test_the_seed_decides() -> None:
    torch.set_num_threads(1)
    assert learn(5, seed=3)[0].losses == learn(5, seed=3)[0].losses
    assert learn(5, seed=3)[0].losses != learn(5, seed=4)[0].losses


def test_the_best_step_is_kept_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.5, 0.9, 0.7])

    def scored(probability: np.ndarray, truth: LabelledVolume) -> PixelScores:
        return PixelScores(0.5, 0, 0, 0, 0, next(scores), 0.5, 0, 0.2)

    seen: list[torch.Tensor] = []

    class Peek(Watch):
        def validated(self, step: int, scores: PixelScores, probability: np.ndarray, *, best: bool) -> None:
            super().validated(step, scores, probability, best=best)
            seen.append(torch.tensor(probability))

    monkeypatch.setattr(loop_module, "_scored", scored)
    watch = Peek()
    settings = FitSettings(steps=30, validate_every=10, precision="float32", patch=32)
    choice = NetworkSettings(arguments={"width": 4, "depth": 1})
    trained = fit(stripes(1), stripes(2), choice, settings, watch, {"name": "test"})
    assert [best for *_, best in watch.validations] == [True, True, False]
    assert trained.best is not None
    assert trained.best.best_f1 == 0.9
    from volseg.inference.facts import worker_facts
    from volseg.models.model import Model

    again = loop_module.predict_sections(
        Model(trained.network, trained.card, ""), stripes(2).raw, "float32", worker_facts("cpu")
    )
    np.testing.assert_allclose(again, seen[1].numpy(), atol=1e-5)
    assert np.abs(again - seen[2].numpy()).max() > 1e-3


def test_time_may_end_it() -> None:
    trained, watch = learn(10**6, minutes=0.05)
    assert 1 < len(trained.losses) < 10**6
    assert trained.seconds < 30
    assert watch.validations[-1][0] == len(trained.losses)


def test_the_learning_rate_rises_then_falls() -> None:
    _, watch = learn(60)
    rates = [rate for _, _, rate, _ in watch.steps]
    assert rates[0] < 0.2 * max(rates)
    assert max(rates) == pytest.approx(1e-2, rel=0.05)
    assert rates[-1] < 0.01 * max(rates)


def test_a_loss_that_is_no_number_stops_it() -> None:
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+; lower fit.learning_rate"):
        learn(40, learning_rate=1e30)


def test_one_channel_and_two_channels_agree() -> None:
    logits, targets = torch.randn(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) > 0.5).float()
    two = torch.cat([torch.zeros_like(logits), logits], dim=1)
    torch.testing.assert_close(cross_entropy(logits, targets, 0), cross_entropy(two, targets, 1))
    torch.testing.assert_close(cross_entropy(logits, targets, 0), cross_entropy(two.flip(1), targets, 0))


def test_one_value_a_channel_is_refused_in_one_line() -> None:
    with pytest.raises(TrainingError, match="leaves one value a channel .*; raise fit.batch or fit.patch"):
        learn(1, arguments={"width": 2, "depth": 5}, batch=1, patch=32)


def test_a_3d_network_with_channels_is_refused() -> None:
    with pytest.raises(ModelError, match="a 3-D network takes one grey value a voxel, not 3 channels"):
        learn(1, arguments={"width": 2, "depth": 1, "in_channels": 3, "kernel": [3, 3, 3], "pool": [1, 2, 2]})
