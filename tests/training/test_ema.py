"""The average is the recurrence it is defined by, and goes on from a file as if it had never stopped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from volseg.errors import ResumeError
from volseg.training.ema import Averaged


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    return net


def step(net: nn.Module) -> None:
    """Move all weights, and what the batch norm has seen."""
    with torch.no_grad():
        for weights in net.parameters():
            weights.add_(torch.randn_like(weights))
    net.train()(torch.randn(2, 2, 5, 5))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_each_update_keeps_its_share_of_the_average(decay: float) -> None:
    net = network()
    averaged = Averaged(net, decay)
    expected = {name: tensor.double() for name, tensor in net.state_dict().items()}
    for n in range(12):
        step(net)
        kept = min(decay, (1 + n) / (10 + n))
        expected = {name: kept * expected[name] + (1 - kept) * now for name, now in net.state_dict().items()}
        averaged.update(net)
    for name, now in averaged.network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert int(now) == 12
        else:
            np.testing.assert_allclose(now, expected[name], atol=1e-5)


def test_without_decay_it_is_a_copy_that_does_not_move_with_the_network() -> None:
    net = network()
    averaged = Averaged(net, 0)
    step(net)
    averaged.update(net)
    held = net.state_dict()
    assert same(averaged.network.state_dict(), held)
    before = averaged.state()
    step(net)
    assert same(averaged.state(), before)


def test_the_copy_predicts_and_is_not_learned() -> None:
    net = network().train()
    averaged = Averaged(net, 0.9)
    step(net)
    averaged.update(net)
    assert net.training
    assert not any(module.training for module in averaged.network.modules())
    assert not any(weights.requires_grad for weights in averaged.network.parameters())


def test_a_network_without_counts_is_averaged_too() -> None:
    net = nn.Conv2d(1, 1, 1)
    averaged = Averaged(net, 0.5)
    before = averaged.state()["network.weight"]
    with torch.no_grad():
        net.weight += 1
    averaged.update(net)
    torch.testing.assert_close(averaged.state()["network.weight"], before + 0.9)


def test_a_state_goes_through_a_file_and_on_bit_for_bit() -> None:
    net = network()
    whole = Averaged(net, 0.9)
    step(net)
    whole.update(net)
    resumed = Averaged(network(), 0.9)
    resumed.load(load(save(whole.state())))
    for _ in range(3):
        step(net)
        whole.update(net)
        resumed.update(net)
        assert same(whole.state(), resumed.state())


def test_the_state_of_another_network_is_refused() -> None:
    averaged = Averaged(network(), 0.9)
    for state in (Averaged(nn.Conv2d(1, 1, 1), 0.9).state(), {}):
        with pytest.raises(ResumeError, match="not those of the run's network"):
            averaged.load(state)
