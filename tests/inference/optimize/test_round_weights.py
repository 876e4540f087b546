"""Weights in fewer bits: each close to what it was, each kernel's sum closer than rounding to the nearest leaves it."""

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
    """The step between a type's numbers around the greatest weight of each kernel."""
    exponent = weights.abs().flatten(2).amax(-1).log2().floor()
    return torch.exp2(exponent) * torch.finfo(dtype).eps


@given(st.integers(0, 99), SIDES, LOW)
def test_a_kernels_sum_moves_by_half_a_step_at_most(seed: int, sides: list[int], dtype: torch.dtype) -> None:
    weights = weights_of(seed, sides)
    made = error_diffusion(weights, dtype)
    assert torch.equal(made, made.to(dtype).float())
    step = ulps(made, dtype)
    apart = (made.double() - weights.double()).flatten(2)
    assert bool((apart.sum(-1).abs() <= 0.5 * step + 1e-6).all())
    assert bool((apart.abs() <= step[..., None] + 1e-6).all())


@given(SIDES)
def test_a_path_goes_through_every_place_and_never_jumps(sides: list[int]) -> None:
    path = list(serpentine(sides))
    assert len(set(path)) == len(path) == torch.Size(sides).numel()
    steps = [sum(abs(a - b) for a, b in zip(one, other, strict=True)) for one, other in pairwise(path)]
    assert all(step == 1 for step in steps)


def test_smooth_images_suffer_less_than_from_rounding_to_the_nearest() -> None:
    torch.manual_seed(0)
    exact = nn.Conv2d(16, 16, 3, padding=1)
    image = nn.functional.interpolate(torch.randn(1, 16, 16, 16), size=(128, 128), mode="bicubic")
    nearest = exact.weight.bfloat16().float()

    def error(weight: Tensor) -> float:
        apart = nn.functional.conv2d(image, weight) - nn.functional.conv2d(image, exact.weight)
        return float(apart.detach().abs().mean())

    assert error(error_diffusion(exact.weight.detach(), torch.bfloat16)) < 0.5 * error(nearest)


@pytest.mark.skipif(not can_pack(torch.bfloat16), reason="this processor, or oneDNN's limit, has no bfloat16")
def test_a_narrow_convolution_adds_its_bias_before_it_rounds() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 4, 3))
    network[0].bias = nn.Parameter(torch.tensor([100.3, -70.7, 31.1, 0.01]))
    round_weights(network, torch.bfloat16)
    network.bfloat16()
    image = torch.randn(1, 4, 16, 16).bfloat16()
    made = PackedConvolution(network[0], relu=False)(image).float()
    weight, bias = network[0].weight.float(), torch.tensor([100.3, -70.7, 31.1, 0.01])
    exact = nn.functional.conv2d(image.float(), weight, bias)
    assert network[0].bias.dtype == torch.bfloat16
    assert torch.equal(made, exact.bfloat16().float())


def test_narrowing_leaves_a_layer_without_bias_and_a_transposed_one_as_torch_does() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.ConvTranspose2d(3, 2, 2, 2))
    upwards = network[1].get_parameter("weight")
    exact = upwards.detach().clone()
    round_weights(network, torch.float16)
    network.half()
    assert torch.equal(network[1].get_parameter("weight"), exact.half())
    assert network[0].weight.dtype == torch.float16
    assert network(torch.randn(1, 2, 8, 8).half()).dtype == torch.float16
