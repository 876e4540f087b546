"""Rounded weights stay close, and each kernel's sum closer than with rounding to nearest."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from volseg.inference.optimize.onednn import PackedConvolution, can_pack
from volseg.inference.optimize.round_weights import error_diffusion, round_weights, serpentine

LOW = st.sampled_from([torch.bfloat16, torch.float16])
SIDES = st.lists(st.integers(1, 5), min_size=2, max_size=3)


def weights_of(seed: int, sides: list[int]) -> Tensor:
    return torch.randn(8, 6, *sides, generator=torch.Generator().manual_seed(seed))


def ulps(weights: Tensor, dtype: torch.dtype) -> Tensor:
    """The step between a type's numbers around the largest weight of each kernel."""
    exponent = weights.abs().flatten(2).amax(-1).log2().floor()
    return torch.exp2(exponent) * torch.finfo(dtype).eps


@given(st.integers(0, 99), SIDES, LOW)
def test_a_kernels_sum_changes_by_half_a_step_at_most(seed: int, sides: list[int], dtype: torch.dtype) -> None:
    weights = weights_of(seed, sides)
    rounded = error_diffusion(weights, dtype)
    assert torch.equal(rounded, rounded.to(dtype).float())
    step = ulps(rounded, dtype)
    error = (rounded.double() - weights.double()).flatten(2)
    assert bool((error.sum(-1).abs() <= 0.5 * step + 1e-6).all())
    assert bool((error.abs() <= step[..., None] + 1e-6).all())


@given(SIDES)
def test_a_serpentine_visits_every_position_and_never_jumps(sides: list[int]) -> None:
    path = list(serpentine(sides))
    assert len(set(path)) == len(path) == torch.Size(sides).numel()
    steps = [sum(abs(a - b) for a, b in zip(one, other, strict=True)) for one, other in pairwise(path)]
    assert all(step == 1 for step in steps)


def test_smooth_images_change_less_than_with_rounding_to_nearest() -> None:
    torch.manual_seed(0)
    exact = nn.Conv2d(16, 16, 3, padding=1)
    image = nn.functional.interpolate(torch.randn(1, 16, 16, 16), size=(128, 128), mode="bicubic")
    nearest = exact.weight.bfloat16().float()

    def error(weight: Tensor) -> float:
        difference = nn.functional.conv2d(image, weight) - nn.functional.conv2d(image, exact.weight)
        return float(difference.detach().abs().mean())

    assert error(error_diffusion(exact.weight.detach(), torch.bfloat16)) < 0.5 * error(nearest)


@pytest.mark.skipif(not can_pack(torch.bfloat16), reason="this processor, or oneDNN's limit, has no bfloat16")
def test_a_bfloat16_convolution_adds_its_bias_before_it_rounds() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 4, 3))
    network[0].bias = nn.Parameter(torch.tensor([100.3, -70.7, 31.1, 0.01]))
    round_weights(network, torch.bfloat16)
    network.bfloat16()
    image = torch.randn(1, 4, 16, 16).bfloat16()
    result = PackedConvolution(network[0], relu=False)(image).float()
    weight, bias = network[0].weight.float(), torch.tensor([100.3, -70.7, 31.1, 0.01])
    exact = nn.functional.conv2d(image.float(), weight, bias)
    assert network[0].bias.dtype == torch.bfloat16
    assert torch.equal(result, exact.bfloat16().float())


def test_transposed_convolutions_are_rounded_as_torch_does_and_a_bias_is_optional() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.ConvTranspose2d(3, 2, 2, 2))
    upwards = network[1].get_parameter("weight")
    exact = upwards.detach().clone()
    round_weights(network, torch.float16)
    network.half()
    assert torch.equal(network[1].get_parameter("weight"), exact.half())
    assert network[0].weight.dtype == torch.float16
    assert network(torch.randn(1, 2, 8, 8).half()).dtype == torch.float16
