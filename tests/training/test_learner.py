"""One step: gradients, precision, and the state that a checkpoint holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from volseg.errors import ConfigError, TrainingError
from volseg.models.model import card_for
from volseg.models.registry import build_network
from volseg.ops import Normalization
from volseg.training import TrainingSettings
from volseg.training.checkpoint import read_checkpoint, write_checkpoint
from volseg.training.learner import Learner, middle
from volseg.training.processes import Processes
from volseg.training.sample import Sample

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
