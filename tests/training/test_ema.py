"""EMA: equal to its recurrence, and restored bit for bit from a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from volseg.errors import ResumeError
from volseg.training.ema import EMA


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    return net


def step(net: nn.Module) -> None:
    """Change all weights and the batch-norm statistics."""
    with torch.no_grad():
        for weights in net.parameters():
            weights.add_(torch.randn_like(weights))
    net.train()(torch.randn(2, 2, 5, 5))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_each_update_follows_the_recurrence(decay: float) -> None:
    net = network()
    ema = EMA(net, decay)
    expected = {name: tensor.double() for name, tensor in net.state_dict().items()}
    for n in range(12):
        step(net)
        n_decay = min(decay, (1 + n) / (10 + n))
        expected = {name: n_decay * expected[name] + (1 - n_decay) * now for name, now in net.state_dict().items()}
        ema.update(net)
    for name, now in ema.network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert int(now) == 12
        else:
            np.testing.assert_allclose(now, expected[name], atol=1e-5)


def test_with_decay_0_it_is_a_copy_independent_of_the_network() -> None:
    net = network()
    ema = EMA(net, 0)
    step(net)
    ema.update(net)
    assert same(ema.network.state_dict(), net.state_dict())
    before = ema.state_dict()
    step(net)
    assert same(ema.state_dict(), before)


def test_the_average_is_in_eval_mode_without_gradients() -> None:
    net = network().train()
    ema = EMA(net, 0.9)
    step(net)
    ema.update(net)
    assert net.training
    assert not any(module.training for module in ema.network.modules())
    assert not any(weights.requires_grad for weights in ema.network.parameters())


def test_a_network_without_integer_buffers_is_averaged() -> None:
    net = nn.Conv2d(1, 1, 1)
    ema = EMA(net, 0.5)
    before = ema.state_dict()["network.weight"]
    with torch.no_grad():
        net.weight += 1
    ema.update(net)
    torch.testing.assert_close(ema.state_dict()["network.weight"], before + 0.9)


def test_a_state_restored_from_a_file_continues_bit_for_bit() -> None:
    net = network()
    original = EMA(net, 0.9)
    step(net)
    original.update(net)
    resumed = EMA(network(), 0.9)
    resumed.load_state_dict(load(save(original.state_dict())))
    for _ in range(3):
        step(net)
        original.update(net)
        resumed.update(net)
        assert same(original.state_dict(), resumed.state_dict())


def test_the_state_of_another_network_is_refused() -> None:
    ema = EMA(network(), 0.9)
    for state in (EMA(nn.Conv2d(1, 1, 1), 0.9).state_dict(), {}):
        with pytest.raises(ResumeError, match="do not fit the network"):
            ema.load_state_dict(state)
