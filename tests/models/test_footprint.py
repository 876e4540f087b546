"""Reach and stride are derived from the network, and true of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.makers import random_network
from volseg.errors import ModelError
from volseg.models.footprint import network_footprint

SMALL: list[tuple[str, dict[str, Any]]] = [
    ("fusionnet", {"width": 2, "depth": 1}),
    ("fusionnet", {"width": 2, "depth": 2}),
    ("unet", {"width": 4, "depth": 2, "padded": True, "batch_norm": True}),
    ("unet", {"width": 4, "depth": 2}),
]
"""Small enough to look at every pixel; the arithmetic is the same at full depth."""


def positive(network: nn.Module) -> nn.Module:
    """Positive weights, no biases, batch norms that change nothing: what one voxel does can never cancel out."""
    network = network.double().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.reset_parameters()
    return network


def influenced(network: nn.Module, side: int, at: int, axis: int) -> tuple[int, int]:
    """First and last output place that an impulse at an input place changes, along one axis."""
    impulse = torch.zeros(1, 1, side, side, dtype=torch.float64)
    place = [side // 2, side // 2]
    place[axis] = at
    impulse[0, 0, place[0], place[1]] = 1.0
    with torch.inference_mode():
        changed = (network(impulse) - network(torch.zeros_like(impulse)))[0].abs().amax(dim=(0, 2 - axis)) > 0
    places = np.flatnonzero(changed.numpy())
    return int(places[0]), int(places[-1])


@pytest.mark.parametrize(("name", "arguments"), SMALL)
@pytest.mark.parametrize("axis", [0, 1])
def test_reach_is_what_an_impulse_shows_at_every_stride_phase(name: str, arguments: dict[str, Any], axis: int) -> None:
    network = positive(random_network(name, arguments))
    footprint = network_footprint(network)
    stride, margin = footprint.stride[1 + axis], footprint.margin[1 + axis]
    reach_before, reach_after = footprint.reach_before[1 + axis], footprint.reach_after[1 + axis]
    side = footprint.smallest[1] + stride * (2 * max(reach_before, reach_after) // stride + 4)
    before = after = 0
    for phase in range(stride):
        at = side // 2 // stride * stride + phase
        first, last = influenced(network, side, at, axis)
        # An output at p looks at input p + margin; what a later output sees of an earlier input is reach before it.
        before, after = max(before, last + margin - at), max(after, at - (first + margin))
    assert (before, after) == (reach_before, reach_after)


@pytest.mark.parametrize(
    ("name", "arguments"), [*SMALL, ("fusionnet", {"width": 2, "depth": 4}), ("unet", {"width": 2})]
)
def test_changing_a_voxel_beyond_the_reach_changes_nothing(name: str, arguments: dict[str, Any]) -> None:
    network = random_network(name, arguments)
    footprint = network_footprint(network)
    _, stride, _ = footprint.stride
    before, after, margin = footprint.reach_before[1], footprint.reach_after[1], footprint.margin[1]
    side = footprint.smallest[1] + stride * ((before + after) // stride + 4)
    raw = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    for phase in sorted({0, 1, stride - 1}):
        at = (side // 2) // stride * stride + phase  # an input place; the output there is at - margin
        changed = raw.clone()
        changed[:, :, : at - before] += 9.0
        changed[:, :, at + after + 1 :] -= 9.0
        with torch.inference_mode():
            one, other = network(raw)[0, :, at - margin], network(changed)[0, :, at - margin]
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "arguments"), SMALL)
def test_stride_is_the_shift_under_which_the_network_commutes(name: str, arguments: dict[str, Any]) -> None:
    network = random_network(name, arguments)
    footprint = network_footprint(network)
    stride, reach, margin = (
        footprint.stride[1],
        max(footprint.reach_before[1], footprint.reach_after[1]),
        footprint.margin[1],
    )
    side = footprint.smallest[1] + stride * (2 * reach // stride + 6)
    raw = torch.randn(1, 1, side + stride, side + stride, generator=torch.Generator().manual_seed(1))
    inside = slice(reach - margin + stride, side - reach - margin - stride)
    with torch.inference_mode():
        here = network(raw[..., :side, :side])[..., inside, inside]
        for shift in range(1, stride + 1):
            there = network(raw[..., shift : shift + side, :side])
            moved = there[..., inside.start - shift : inside.stop - shift, inside]
            same = torch.allclose(here, moved, rtol=0, atol=1e-5)
            assert same == (shift == stride), f"shift {shift}"


def test_the_papers_networks_have_the_reach_and_sizes_that_are_known() -> None:
    with torch.device("meta"):
        unet, fusionnet = random_network("unet", {}), random_network("fusionnet", {})
    footprint = network_footprint(unet)
    assert footprint.margin == (0, 92, 92)
    assert footprint.stride == (1, 16, 16)
    assert footprint.input_shape((1, 388, 388), footprint.exact_halo()) == (1, 572, 572)
    footprint = network_footprint(fusionnet)
    assert footprint.reach_before == footprint.reach_after == (0, 245, 245)
    assert footprint.exact_halo() == (0, 240, 240)


def test_a_layer_whose_reach_is_unknown_is_refused() -> None:
    with pytest.raises(ModelError, match="the reach of .*Upsample.* is not known"):
        network_footprint(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Upsample(scale_factor=1)))
