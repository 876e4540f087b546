"""Learner: training steps, precision, checkpoints, optimizer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from volseg.config.train_tables import OptimizerSettings, TrainingSettings
from volseg.errors import ConfigError, TrainingError
from volseg.models.model import build_card
from volseg.models.registry import build_network
from volseg.ops import Normalization
from volseg.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from volseg.training.data.sample import Sample
from volseg.training.distributed import DistributedContext
from volseg.training.learner import Learner, center_crop, make_optimizer, optimizer_step

if TYPE_CHECKING:
    from pathlib import Path

OUTPUT_SHAPE = (1, 32, 32)


def make_learner(precision: str = "float32", name: str = "fusionnet", **tables: dict) -> Learner:
    torch.manual_seed(0)
    values = {"data": {"raw": "", "labels": "", "train": [0, 1]}, **tables}
    arguments = {"width": 4, "depth": 1}
    network = build_network(name, arguments)
    card = build_card(
        network,
        name="n",
        kind=name,
        arguments=arguments,
        normalization=Normalization("section", (0.0, 1.0)),
        voxel_nm=(1.0, 1.0, 1.0),
    )
    return Learner(network, card, TrainingSettings.model_validate(values), precision, DistributedContext(0, 1, "cpu"))


def sample(side: int = 32) -> Sample:
    """Noise with a bright stripe of membrane."""
    labels = torch.zeros(2, 1, side, side, dtype=torch.int32)
    labels[..., :8, :] = 1
    return Sample(labels * 2 - 0.5 + 0.1 * torch.randn(labels.shape), labels, None, torch.arange(2))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_every_precision_reduces_the_loss_and_keeps_float32_weights(precision: str) -> None:
    learner = make_learner(precision)
    losses = [learner.train_step([sample()], OUTPUT_SHAPE, 1e-2) for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]
    assert {weight.dtype for weight in learner.network.parameters()} == {torch.float32}
    assert {weight.dtype for weight in learner.ema.network.parameters()} == {torch.float32}


def test_a_float16_gradient_that_overflows_skips_the_step_and_lowers_the_scale() -> None:
    learner = make_learner("float16")
    learner.load_checkpoint(_with_scale(learner, 2.0**40))
    before = [weight.clone() for weight in learner.network.parameters()]
    learner.train_step([sample()], OUTPUT_SHAPE, 1e-2)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.network.parameters(), strict=True))
    assert learner.checkpoint().metadata["scaler"]["scale"] == 2.0**39


def _with_scale(learner: Learner, scale: float) -> Checkpoint:
    checkpoint = learner.checkpoint()
    checkpoint.metadata["scaler"]["scale"] = scale
    return checkpoint


def test_optimizer_moments_are_restored_in_the_memory_format_of_their_weights(tmp_path: Path) -> None:
    first, second = make_learner(), make_learner()
    first.train_step([sample()], OUTPUT_SHAPE, 1e-3)
    write_checkpoint(tmp_path / "checkpoint", first.checkpoint())
    second.load_checkpoint(read_checkpoint(tmp_path / "checkpoint"))
    for learner in (first, second):
        for weight, moments in learner._optimizer.state.items():
            assert moments["exp_avg"].stride() == weight.stride()


def test_ignored_voxels_have_no_gradient() -> None:
    learner = make_learner()
    known = sample()
    ignored = Sample(known.raw, torch.full_like(known.labels, -1), None, known.seeds)
    before = [weight.clone() for weight in learner.network.parameters()]
    assert learner.train_step([ignored], OUTPUT_SHAPE, 1e-2) == 0.0
    decayed = 1 - 1e-2 * 1e-4
    for weight, was in zip(learner.network.parameters(), before, strict=True):
        torch.testing.assert_close(weight, was * (decayed if was.ndim > 1 else 1.0), rtol=1e-5, atol=1e-8)


def test_an_output_of_another_shape_than_the_target_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"network unet has the output .* target is .*; use other network.arguments"):
        make_learner(name="unet").train_step([sample(40)], OUTPUT_SHAPE, 1e-2)


def test_a_loss_that_is_not_finite_does_not_change_the_ema() -> None:
    learner = make_learner()
    broken = sample()
    broken.raw[0, 0, 0, 0] = torch.nan
    before = [weight.clone() for weight in learner.ema.network.parameters()]
    with pytest.raises(TrainingError, match="the loss is nan at step 1; lower optimizer.learning_rate"):
        learner.train_step([broken], OUTPUT_SHAPE, 1e-2)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.ema.network.parameters(), strict=True))


def test_a_center_crop_is_centred() -> None:
    whole = torch.arange(5 * 7 * 9).reshape(1, 5, 7, 9)
    assert torch.equal(center_crop(whole, (1, 3, 5)), whole[:, 2:3, 2:5, 2:7])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # from torch, when it imports its compiler
def test_a_compiled_network_has_the_same_losses() -> None:
    plain, compiled = make_learner(), make_learner(fit={"compile": True})
    batch = sample()
    for _ in range(3):
        assert compiled.train_step([batch], OUTPUT_SHAPE, 1e-3) == pytest.approx(
            plain.train_step([batch], OUTPUT_SHAPE, 1e-3), rel=1e-3
        )
    assert compiled.checkpoint().tensors.keys() == plain.checkpoint().tensors.keys()


def layer(*values: float) -> nn.Module:
    """A network of one layer with these weights."""
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
def test_weight_decay_applies_to_trainable_kernels_only(name: str) -> None:
    net = build_network("fusionnet", {"width": 2, "depth": 1})
    next(net.parameters()).requires_grad_(False)
    decays = {
        id(weights): group["weight_decay"]
        for group in optimizer_of(net, name=name, weight_decay=0.5).param_groups
        for weights in group["params"]
    }
    first, *trainable = net.named_parameters()
    assert id(first[1]) not in decays
    assert len(decays) == len(trainable)
    for module in net.modules():
        for weights in module.parameters(recurse=False):
            if weights.requires_grad:
                is_kernel = isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and weights is module.weight
                assert decays[id(weights)] == (0.5 if is_kernel else 0)


def test_sgd_has_momentum() -> None:
    net = layer(1.0)
    optimizer = optimizer_of(net, name="sgd", momentum=0.9, weight_decay=0)
    for expected in (1 - 0.1, 1 - 0.1 - 0.19):
        weights = set_gradient(net, 1.0)
        optimizer_step(optimizer, 0.1, None)
        assert weights.item() == pytest.approx(expected)


@pytest.mark.parametrize(("name", "expected"), [("adamw", 2 - 0.1 * (1 + 0.5 * 2)), ("adam", 2 - 0.1)])
def test_the_first_step_of_adam_equals_the_learning_rate_and_adamw_adds_decay(name: str, expected: float) -> None:
    net = layer(2.0)
    weights = set_gradient(net, 3.0)
    optimizer_step(optimizer_of(net, name=name, weight_decay=0.5), 0.1, None)
    assert weights.item() == pytest.approx(expected)


@pytest.mark.parametrize(("clip", "length"), [(None, 5.0), (10.0, 5.0), (1.0, 1.0)])
def test_a_long_gradient_is_clipped_and_its_norm_returned(clip: float | None, length: float) -> None:
    net = layer(0.0, 0.0)
    weights = set_gradient(net, 3.0, -4.0)
    norm = optimizer_step(optimizer_of(net, name="sgd", weight_decay=0), 1.0, clip)
    assert norm.item() == pytest.approx(5)
    torch.testing.assert_close(weights.data, torch.tensor([[-0.6, 0.8]]) * length)


def test_gradients_are_cleared_after_the_step_and_a_step_without_them_changes_nothing() -> None:
    net = layer(1.0, 2.0)
    weights = set_gradient(net, 1.0, 1.0)
    optimizer = optimizer_of(net)
    optimizer_step(optimizer, 0.1, 1.0)
    assert weights.grad is None
    before = weights.detach().clone()
    assert optimizer_step(optimizer, 0.1, 1.0).item() == 0
    assert torch.equal(weights, before)


def test_gradients_are_unscaled_before_clipping_and_infinite_ones_are_skipped() -> None:
    net = layer(0.0, 0.0)
    optimizer = optimizer_of(net, name="sgd", weight_decay=0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.zeros(()))
    weights = set_gradient(net, 8 * 3.0, 8 * 4.0)
    assert optimizer_step(optimizer, 1.0, 1.0, scaler).item() == pytest.approx(5)
    moved = weights.detach().clone()
    torch.testing.assert_close(moved, torch.tensor([[-0.6, -0.8]]))
    set_gradient(net, math.inf, 1.0)
    assert not math.isfinite(optimizer_step(optimizer, 1.0, 1.0, scaler).item())
    assert torch.equal(weights, moved)
    assert scaler.get_scale() == 4
