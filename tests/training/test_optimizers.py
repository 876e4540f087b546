"""Optimisers follow the gradient as their formulas say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from volseg.models.registry import build_network
from volseg.training.optimizers import make_optimizer, step_down
from volseg.training.settings import OptimizerSettings


def point(*values: float) -> nn.Module:
    """A network of one kernel with these weights."""
    net = nn.Linear(len(values), 1, bias=False)
    net.weight.data = torch.tensor([values])
    return net


def set_gradient(net: nn.Module, *values: float) -> torch.Tensor:
    (weights,) = net.parameters()
    weights.grad = torch.tensor([values])
    return weights


def optimizer_of(net: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    return make_optimizer(net, OptimizerSettings(**settings))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_kernels_alone_decay_and_fixed_weights_are_left_out(name: str) -> None:
    net = build_network("fusionnet", {"width": 2, "depth": 1})
    next(net.parameters()).requires_grad_(False)
    decays = {
        id(weights): group["weight_decay"]
        for group in optimizer_of(net, name=name, weight_decay=0.5).param_groups
        for weights in group["params"]
    }
    first, *learned = net.named_parameters()
    assert id(first[1]) not in decays
    assert len(decays) == len(learned)
    for module in net.modules():
        for weights in module.parameters(recurse=False):
            if weights.requires_grad:
                is_kernel = isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and weights is module.weight
                assert decays[id(weights)] == (0.5 if is_kernel else 0)


def test_sgd_gathers_momentum() -> None:
    net = point(1.0)
    optimizer = optimizer_of(net, name="sgd", momentum=0.9, weight_decay=0)
    for expected in (1 - 0.1, 1 - 0.1 - 0.19):
        weights = set_gradient(net, 1.0)
        step_down(optimizer, 0.1, None)
        assert weights.item() == pytest.approx(expected)


@pytest.mark.parametrize(("name", "expected"), [("adamw", 2 - 0.1 * (1 + 0.5 * 2)), ("adam", 2 - 0.1)])
def test_the_first_step_of_adam_is_the_rate_and_adamw_decays_beside_it(name: str, expected: float) -> None:
    net = point(2.0)
    weights = set_gradient(net, 3.0)
    step_down(optimizer_of(net, name=name, weight_decay=0.5), 0.1, None)
    assert weights.item() == pytest.approx(expected)


@pytest.mark.parametrize(("clip", "length"), [(None, 5.0), (10.0, 5.0), (1.0, 1.0)])
def test_a_long_gradient_is_shortened_and_its_own_norm_told(clip: float | None, length: float) -> None:
    net = point(0.0, 0.0)
    weights = set_gradient(net, 3.0, -4.0)
    norm = step_down(optimizer_of(net, name="sgd", weight_decay=0), 1.0, clip)
    assert norm.item() == pytest.approx(5)
    torch.testing.assert_close(weights.data, torch.tensor([[-0.6, 0.8]]) * length)


def test_gradients_are_forgotten_after_the_step_and_none_moves_nothing() -> None:
    net = point(1.0, 2.0)
    weights = set_gradient(net, 1.0, 1.0)
    optimizer = optimizer_of(net)
    step_down(optimizer, 0.1, 1.0)
    assert weights.grad is None
    before = weights.detach().clone()
    assert step_down(optimizer, 0.1, 1.0).item() == 0
    assert torch.equal(weights, before)


def test_a_scaler_is_undone_before_clipping_and_leaves_out_what_is_no_number() -> None:
    net = point(0.0, 0.0)
    optimizer = optimizer_of(net, name="sgd", weight_decay=0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.zeros(()))
    weights = set_gradient(net, 8 * 3.0, 8 * 4.0)
    assert step_down(optimizer, 1.0, 1.0, scaler).item() == pytest.approx(5)
    moved = weights.detach().clone()
    torch.testing.assert_close(moved, torch.tensor([[-0.6, -0.8]]))
    set_gradient(net, math.inf, 1.0)
    assert not math.isfinite(step_down(optimizer, 1.0, 1.0, scaler).item())
    assert torch.equal(weights, moved)
    assert scaler.get_scale() == 4
