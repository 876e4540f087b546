"""Losses equal their formulas, ignore voxels of weight 0, and stay finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from volseg.config.train_tables import LossSettings
from volseg.errors import ConfigError
from volseg.training.losses import Loss, make_loss

NAMES = ["cross_entropy", "balanced", "dice", "focal", "mean_absolute"]
VOXELWISE = [name for name in NAMES if name != "dice"]
ALL = pytest.mark.parametrize(("name", "activation"), [(name, to) for name in NAMES for to in ("sigmoid", "softmax")])
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def loss_of(name: str, activation: Any = "sigmoid", classes: tuple[str, ...] = (), **more: Any) -> Loss:
    return make_loss(LossSettings(name=name, **more), activation, classes)


def batch(activation: str, seed: int = 0, size: tuple[int, ...] = (3, 4, 5)) -> Batch:
    """Output, targets and uneven weights, some of them 0; one channel under a sigmoid, two under a softmax."""
    random = torch.Generator().manual_seed(seed)
    channels = 1 if activation == "sigmoid" else 2
    output = 3 * torch.randn((2, channels, *size), generator=random)
    membrane = (torch.rand((2, 1, *size), generator=random) < 0.3).float()
    weights = torch.rand(membrane.shape, generator=random) * (torch.rand(membrane.shape, generator=random) < 0.8)
    return output, membrane if channels == 1 else torch.cat([1 - membrane, membrane], dim=1), weights


def gradient(loss: Loss, output: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    leaf = output.clone().requires_grad_()
    (result,) = torch.autograd.grad(loss(leaf, *rest), leaf)
    return result


def formula(name: str, p: np.ndarray, t: np.ndarray, w: np.ndarray) -> float:
    """One channel, float64: probabilities, targets and weights."""
    true = np.where(t == 1, p, 1 - p)
    if name == "dice":
        return float(1 - 2 * (w * p * t).sum() / (w * (p**2 + t**2)).sum())
    if name == "balanced":
        fractions = [(w * (t == side)).sum() / w.sum() for side in (0, 1)]
        w = w * np.where(t == 1, fractions[0], fractions[1])
    losses = {"focal": -((1 - true) ** 2) * np.log(true), "mean_absolute": 1 - true}.get(name, -np.log(true))
    return float((w * losses).sum() / w.sum())


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_equals_its_formula(name: str) -> None:
    output, targets, weights = batch("sigmoid")
    p, t, w = (tensor.double().numpy() for tensor in (output.double().sigmoid(), targets, weights))
    assert loss_of(name)(output, targets, weights).item() == pytest.approx(formula(name, p, t, w), rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_of_two_channels_the_loss_is_the_mean_of_their_formulas(name: str) -> None:
    output, targets, weights = batch("softmax")
    p, t, w = (tensor.double().numpy() for tensor in (output.double().sigmoid(), targets, weights))
    expected = np.mean([formula(name, p[:, channel], t[:, channel], w[:, 0]) for channel in (0, 1)])
    loss = loss_of(name, "sigmoid", ("affinity_y-1", "affinity_x-1"))
    assert loss(output, targets, weights).item() == pytest.approx(expected, rel=1e-4)
    assert loss(output, targets, weights.expand_as(output)).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", VOXELWISE)
def test_a_sigmoid_equals_a_softmax_over_its_logit_and_zero(name: str) -> None:
    output, targets, weights = batch("sigmoid")
    pair = torch.cat([torch.zeros_like(output), output], dim=1), torch.cat([1 - targets, targets], dim=1), weights
    for more in ({}, {"membrane_weight": 5.0}, {"gamma": 0.5}):
        alone = loss_of(name, "sigmoid", **more)(output, targets, weights)
        torch.testing.assert_close(loss_of(name, "softmax", **more)(*pair), alone, rtol=1e-5, atol=1e-6)
        swapped = tuple(part.flip(1) for part in pair)
        loss = loss_of(name, "softmax", ("membrane", "cell"), **more)
        torch.testing.assert_close(loss(swapped[0], swapped[1], swapped[2]), alone, rtol=1e-5, atol=1e-6)


@ALL
@settings(max_examples=5)
@given(seed=st.integers(0, 99), factor=st.floats(1e-3, 1e3))
def test_a_factor_of_all_weights_and_the_order_of_voxels_change_nothing(
    name: str, activation: str, seed: int, factor: float
) -> None:
    loss, (output, targets, weights) = loss_of(name, activation, membrane_weight=2), batch(activation, seed)
    expected = loss(output, targets, weights)
    torch.testing.assert_close(loss(output, targets, factor * weights), expected, rtol=1e-4, atol=1e-6)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    shuffled = [part[..., order] for part in (output, targets, weights)]
    torch.testing.assert_close(loss(shuffled[0], shuffled[1], shuffled[2]), expected, rtol=1e-4, atol=1e-6)


@ALL
def test_voxels_of_weight_zero_change_nothing_and_get_no_gradient(name: str, activation: str) -> None:
    loss, (output, targets, weights) = loss_of(name, activation), batch(activation)
    hidden = (weights == 0).expand_as(output)
    other = torch.where(hidden, -7.5, output), torch.where(hidden, 0, targets), weights
    torch.testing.assert_close(loss(*other), loss(output, targets, weights))
    gradients = gradient(loss, *other)
    assert (gradients[hidden] == 0).all()
    assert (gradients[~hidden] != 0).any()


@ALL
def test_a_batch_in_which_nothing_counts_is_exactly_nothing(name: str, activation: str) -> None:
    loss, (output, targets, weights) = loss_of(name, activation, membrane_weight=3), batch(activation)
    for ignored in (targets, torch.zeros_like(targets)):
        assert loss(output, ignored, 0 * weights).item() == 0
        assert not gradient(loss, output, ignored, 0 * weights).any()


@ALL
def test_a_2d_batch_has_the_loss_of_the_same_batch_with_one_section(name: str, activation: str) -> None:
    loss, flat = loss_of(name, activation), batch(activation, size=(4, 5))
    output, targets, weights = (part[:, :, None] for part in flat)
    torch.testing.assert_close(loss(*flat), loss(output, targets, weights))


@ALL
def test_loss_and_gradient_are_finite_for_large_logits(name: str, activation: str) -> None:
    output, targets, weights = batch(activation)
    for gamma in (0, 0.5, 2):
        for scale in (1e4, -1e4):
            confident = scale * output.sign()
            loss = loss_of(name, activation, gamma=gamma)
            assert loss(confident, targets, weights).isfinite()
            assert gradient(loss, confident, targets, weights).isfinite().all()


@ALL
def test_confident_outputs_have_loss_0_if_right_and_a_large_loss_if_wrong(name: str, activation: str) -> None:
    _, targets, weights = batch(activation)
    right = 20 * (2 * targets - 1)
    assert loss_of(name, activation)(right, targets, weights).item() == pytest.approx(0, abs=1e-6)
    assert loss_of(name, activation)(-right, targets, weights).item() > 0.99


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_a_step_against_the_gradient_lowers_every_loss(activation: str) -> None:
    output, targets, weights = batch(activation)
    for name in NAMES:
        loss = loss_of(name, activation)
        stepped = output - 0.1 * gradient(loss, output, targets, weights)
        assert loss(stepped, targets, weights) < loss(output, targets, weights)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_focal_without_gamma_is_cross_entropy(activation: str) -> None:
    torch.testing.assert_close(
        loss_of("focal", activation, gamma=0)(*batch(activation)),
        loss_of("cross_entropy", activation)(*batch(activation)),
    )


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_balanced_equals_cross_entropy_if_classes_have_equal_weight(activation: str) -> None:
    output, _, weights = batch(activation, size=(4, 6))
    membrane = torch.zeros_like(weights)
    membrane[..., 3:] = 1
    targets = membrane if activation == "sigmoid" else torch.cat([1 - membrane, membrane], dim=1)
    even = torch.ones_like(weights)
    expected = loss_of("cross_entropy", activation)(output, targets, even)
    torch.testing.assert_close(loss_of("balanced", activation)(output, targets, even), expected)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_balanced_does_not_depend_on_the_frequency_of_a_class(activation: str) -> None:
    output, targets, weights = batch(activation)
    membrane = targets[:, -1:]
    balanced, more_membrane = loss_of("balanced", activation), weights * (1 + 6 * membrane)
    torch.testing.assert_close(balanced(output, targets, more_membrane), balanced(output, targets, weights))
    only_cells = weights * (1 - membrane)
    expected = loss_of("cross_entropy", activation)(output, targets, only_cells)
    torch.testing.assert_close(balanced(output, targets, only_cells), expected)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("name", ["cross_entropy", "focal", "mean_absolute"])
def test_a_membrane_weight_multiplies_the_weight_of_membrane_voxels(name: str, activation: str) -> None:
    output, targets, weights = batch(activation)
    heavier = weights * (1 + 3 * targets[:, -1:])
    weighted = loss_of(name, activation, membrane_weight=4)(output, targets, weights)
    torch.testing.assert_close(weighted, loss_of(name, activation)(output, targets, heavier))


def test_a_membrane_weight_changes_balanced_and_not_dice() -> None:
    output, targets, weights = batch("sigmoid")
    of_cells, of_membrane = (loss_of("cross_entropy")(output, targets, weights * (targets == side)) for side in (0, 1))
    weighted = loss_of("balanced", membrane_weight=3)(output, targets, weights)
    torch.testing.assert_close(weighted, (of_cells + 3 * of_membrane) / 4)
    assert loss_of("dice", membrane_weight=3)(output, targets, weights) == loss_of("dice")(output, targets, weights)


def test_in_affinities_the_zeros_are_membrane() -> None:
    output, membrane, weights = batch("sigmoid")
    of_affinities = loss_of("cross_entropy", "sigmoid", ("affinity_x-1",), membrane_weight=4)
    of_membrane = loss_of("cross_entropy", membrane_weight=4)
    expected = of_membrane(output, membrane, weights)
    torch.testing.assert_close(of_affinities(-output, 1 - membrane, weights), expected)


@pytest.mark.parametrize(
    ("shapes", "activation"),
    [
        (((2, 1, 4, 4), (2, 1, 4, 5), (2, 1, 4, 4)), "sigmoid"),
        (((2, 2, 4, 4), (2, 1, 4, 4), (2, 1, 4, 4)), "sigmoid"),
        (((2, 1, 4, 4), (2, 1, 4, 4), (1, 1, 4, 4)), "sigmoid"),
        (((2, 3, 4, 4), (2, 3, 4, 4), (2, 2, 4, 4)), "sigmoid"),
        (((2, 2, 4, 4), (2, 2, 4, 4), (2, 2, 4, 4)), "softmax"),
        (((2, 1, 4, 4), (2, 1, 4, 4), (2, 1, 4, 4)), "softmax"),
    ],
)
def test_shapes_that_broadcast_but_do_not_match_are_refused(shapes: Any, activation: str) -> None:
    with pytest.raises(ConfigError, match=r"fit together|softmax over 1 channel"):
        loss_of("cross_entropy", activation)(*(torch.zeros(shape) for shape in shapes))
