"""One step: gradients, precision, and the state that a checkpoint holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from volseg.config.train_tables import OptimizerSettings, TrainingSettings
from volseg.errors import ConfigError, TrainingError
from volseg.models.model import card_for
from volseg.models.registry import build_network
from volseg.ops import Normalization
from volseg.training.checkpoint import read_checkpoint, write_checkpoint
from volseg.training.data.sample import Sample
from volseg.training.distributed import Processes
from volseg.training.learner import Learner, make_optimizer, middle, optimizer_step

if TYPE_CHECKING:
    from pathlib import Path

SCORED = (1, 32, 32)


def learner(precision: str = "float32", name: str = "fusionnet", **tables: dict) -> Learner:
    torch.manual_seed(0)
    values = {"data": {"raw": "", "labels": "", "train": [0, 1]}, **tables}
    arguments = {"width": 4, "depth": 1}
    network = build_network(name, arguments)
    card = card_for(
        network,
        name="n",
        kind=name,
        arguments=arguments,
        normalization=Normalization("section", (0.0, 1.0)),
        voxel_nm=(1.0, 1.0, 1.0),
    )
    return Learner(network, card, TrainingSettings.model_validate(values), precision, Processes(0, 1, "cpu"))


def sample(side: int = 32) -> Sample:
    """Bright squares that are membrane."""
    labels = torch.zeros(2, 1, side, side, dtype=torch.int32)
    labels[..., :8, :] = 1
    return Sample(labels * 2 - 0.5 + 0.1 * torch.randn(labels.shape), labels, None, torch.arange(2))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_every_precision_learns_and_keeps_float32_weights(precision: str) -> None:
    one = learner(precision)
    losses = [one.learn([sample()], SCORED, 1e-2) for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]
    assert {weight.dtype for weight in one.network.parameters()} == {torch.float32}
    assert {weight.dtype for weight in one.average.network.parameters()} == {torch.float32}


def test_a_float16_gradient_that_overflows_skips_the_step_and_lowers_the_scale() -> None:
    one = learner("float16")
    one.load(_with_scale(one, 2.0**40))
    before = [weight.clone() for weight in one.network.parameters()]
    one.learn([sample()], SCORED, 1e-2)
    assert all(torch.equal(a, b) for a, b in zip(before, one.network.parameters(), strict=True))
    assert one.state().facts["scaler"]["scale"] == 2.0**39


def _with_scale(one: Learner, scale: float):
    state = one.state()
    state.facts["scaler"]["scale"] = scale
    return state


def test_moments_come_back_from_disk_in_the_layout_of_their_weights(tmp_path: Path) -> None:
    first, second = learner(), learner()
    first.learn([sample()], SCORED, 1e-3)
    write_checkpoint(tmp_path / "checkpoint", first.state())
    second.load(read_checkpoint(tmp_path / "checkpoint"))
    for each in (first, second):
        for weight, moments in each._optimizer.state.items():
            assert moments["exp_avg"].stride() == weight.stride()


def test_unknown_voxels_teach_nothing() -> None:
    one = learner()
    known = sample()
    blind = Sample(known.raw, torch.full_like(known.labels, -1), None, known.seeds)
    before = [weight.clone() for weight in one.network.parameters()]
    assert one.learn([blind], SCORED, 1e-2) == 0.0
    decayed = 1 - 1e-2 * 1e-4
    for weight, was in zip(one.network.parameters(), before, strict=True):
        torch.testing.assert_close(weight, was * (decayed if was.ndim > 1 else 1.0), rtol=1e-5, atol=1e-8)


def test_a_network_that_makes_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"network unet makes .* where .* is learned; use other network.arguments"):
        learner(name="unet").learn([sample(40)], SCORED, 1e-2)


def test_a_loss_that_is_no_number_leaves_the_averaged_weights() -> None:
    one = learner()
    broken = sample()
    broken.raw[0, 0, 0, 0] = torch.nan
    before = [weight.clone() for weight in one.average.network.parameters()]
    with pytest.raises(TrainingError, match="the loss is nan at step 1; lower optimizer.learning_rate"):
        one.learn([broken], SCORED, 1e-2)
    assert all(torch.equal(a, b) for a, b in zip(before, one.average.network.parameters(), strict=True))


def test_the_middle_is_the_middle() -> None:
    whole = torch.arange(5 * 7 * 9).reshape(1, 5, 7, 9)
    assert torch.equal(middle(whole, (1, 3, 5)), whole[:, 2:3, 2:5, 2:7])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # by torch itself, as it loads its compiler
def test_a_compiled_network_learns_the_same() -> None:
    plain, compiled = learner(), learner(fit={"compile": True})
    batch = sample()
    for _ in range(3):
        assert compiled.learn([batch], SCORED, 1e-3) == pytest.approx(plain.learn([batch], SCORED, 1e-3), rel=1e-3)
    assert compiled.state().tensors.keys() == plain.state().tensors.keys()


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
        optimizer_step(optimizer, 0.1, None)
        assert weights.item() == pytest.approx(expected)


@pytest.mark.parametrize(("name", "expected"), [("adamw", 2 - 0.1 * (1 + 0.5 * 2)), ("adam", 2 - 0.1)])
def test_the_first_step_of_adam_is_the_rate_and_adamw_decays_beside_it(name: str, expected: float) -> None:
    net = point(2.0)
    weights = set_gradient(net, 3.0)
    optimizer_step(optimizer_of(net, name=name, weight_decay=0.5), 0.1, None)
    assert weights.item() == pytest.approx(expected)


@pytest.mark.parametrize(("clip", "length"), [(None, 5.0), (10.0, 5.0), (1.0, 1.0)])
def test_a_long_gradient_is_shortened_and_its_own_norm_told(clip: float | None, length: float) -> None:
    net = point(0.0, 0.0)
    weights = set_gradient(net, 3.0, -4.0)
    norm = optimizer_step(optimizer_of(net, name="sgd", weight_decay=0), 1.0, clip)
    assert norm.item() == pytest.approx(5)
    torch.testing.assert_close(weights.data, torch.tensor([[-0.6, 0.8]]) * length)


def test_gradients_are_forgotten_after_the_step_and_none_moves_nothing() -> None:
    net = point(1.0, 2.0)
    weights = set_gradient(net, 1.0, 1.0)
    optimizer = optimizer_of(net)
    optimizer_step(optimizer, 0.1, 1.0)
    assert weights.grad is None
    before = weights.detach().clone()
    assert optimizer_step(optimizer, 0.1, 1.0).item() == 0
    assert torch.equal(weights, before)


def test_a_scaler_is_undone_before_clipping_and_leaves_out_what_is_no_number() -> None:
    net = point(0.0, 0.0)
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
