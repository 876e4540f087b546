"""Reach and stride are derived from the network, and true of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from volseg.errors import ModelError
from volseg.models.footprint import network_footprint
from volseg.models.networks.layers import CONVOLUTIONS, DECONVOLUTIONS, NORMS
from volseg.models.registry import NETWORKS
from volseg.testing.factories import random_network

if TYPE_CHECKING:
    from volseg.blocks import Footprint

SMALL: list[tuple[str, dict[str, Any]]] = [
    ("fusionnet", {"width": 2, "depth": 1}),
    ("fusionnet", {"width": 2, "depth": 2}),
    ("unet", {"width": 4, "depth": 2, "padded": True, "batch_norm": True}),
    ("unet", {"width": 4, "depth": 2}),
]
"""Small enough to shift by every pixel of the stride."""

ANISOTROPIC = {"kernel": [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]], "pool": [[1, 2, 2]] * 3 + [[2, 2, 2]]}

NARROW: list[tuple[str, dict[str, Any]]] = [
    *((name, {"width": 1}) for name in sorted(NETWORKS)),
    ("unet", {"width": 1, "padded": True, "batch_norm": True}),
    ("fcn32s", {"width": 1, "padded": True}),
    ("fcn8s", {"width": 1, "padded": True}),
    ("sliding_window", {"width": 1, "window": 65}),
    ("fusionnet", {"width": 1, "depth": 2, "kernel": [3, 3, 3], "pool": [2, 2, 2]}),
    ("fusionnet", {"width": 1, "depth": 2, "kernel": [3, 3, 5], "pool": [[1, 2, 2], [1, 2, 3]]}),
    ("fusionnet", {"width": 1, **ANISOTROPIC}),
    ("unet", {"width": 1, "depth": 1, "kernel": [3, 3, 3], "pool": [2, 2, 2]}),
    ("unet", {"width": 1, "depth": 2, "kernel": [1, 3, 3], "pool": [1, 2, 2]}),
    ("unet", {"width": 1, "padded": True, **ANISOTROPIC}),
]
"""Every network at full depth, and 3-D ones: a single channel looks as far as sixty-four."""


def test_the_laws_below_cover_every_network() -> None:
    assert {name for name, _ in NARROW} == set(NETWORKS)


def _case_id(case: tuple[str, dict[str, Any]]) -> str:
    return f"{case[0]}-{'-'.join(f'{k}={v}' for k, v in case[1].items() if k != 'width')}".replace(" ", "")


def positive(network: nn.Module) -> nn.Module:
    """Set positive weights, no biases and identity batch norms: effects of a voxel never cancel out.

    A sigmoid, which would round small effects away, becomes the identity.
    """
    network = network.double().eval()
    for module in network.modules():
        if isinstance(module, CONVOLUTIONS + DECONVOLUTIONS):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, NORMS):
            module.reset_running_stats()
            module.reset_parameters()
    if hasattr(network, "squash"):
        network.squash = nn.Identity()
    return network


def sizes_along(footprint: Footprint, axis: int) -> tuple[int, int, int, int, int]:
    """Reach before and after, stride, margin and a length above twice the reach, along an axis."""
    before, after, stride, margin, smallest = (
        getattr(footprint, name)[axis] for name in ("reach_before", "reach_after", "stride", "margin", "smallest")
    )
    return before, after, stride, margin, smallest + stride * (2 * max(before, after) // stride + 4)


def shape_along(footprint: Footprint, axis: int, length: int) -> list[int]:
    """The shape of an input of `length` along one axis and the smallest size along the others."""
    sides = list(footprint.smallest)
    sides[axis] = length
    return sides[3 - footprint.dimensions :]


LONG = ("deconvnet", "fcn32s", "fcn16s")
"""A DeconvNet takes no input below 224 x 224 voxels; the y of these is as their x."""
CASES = [
    pytest.param(name, arguments, axis, id=f"{_case_id((name, arguments))}-{'zyx'[axis]}",
                 marks=[pytest.mark.slow] if name in LONG and axis == 1 else [])
    for name, arguments in NARROW
    for axis in range(3)
    if axis or "kernel" in arguments
]  # fmt: skip


def test_a_deconvnets_reach_is_that_of_an_impulse_at_the_phases_that_see_the_farthest() -> None:
    check_reach("deconvnet", {"width": 1}, 2, [6, 25])


@pytest.mark.parametrize(
    ("name", "arguments", "axis"),
    [
        pytest.param(
            *case.values, id=case.id, marks=[pytest.mark.slow] if case.values[0] == "deconvnet" else list(case.marks)
        )
        for case in CASES
    ],
)
def test_reach_is_that_of_an_impulse_at_every_stride_phase(name: str, arguments: dict[str, Any], axis: int) -> None:
    check_reach(name, arguments, axis)


def check_reach(name: str, arguments: dict[str, Any], axis: int, phases: list[int] | None = None) -> None:
    """Impulses at some phases of the stride, by default at all, show the reach that is stated."""
    network = positive(random_network(name, arguments))
    footprint = network_footprint(network)
    reach_before, reach_after, stride, margin, length = sizes_along(footprint, axis)
    shape = shape_along(footprint, axis, length)
    line = len(shape) - 3 + axis
    before = after = 0
    for phase in phases or range(stride):
        at = length // 2 // stride * stride + phase
        for faint in (0.0, 1e-200) if name == "deconvnet" else (0.0,):
            first, last = influenced(network, shape, line, at, faint)
            # An output at p is centred on input p + margin; later outputs depend on earlier inputs: reach before.
            before, after = max(before, last + margin - at), max(after, at - (first + margin))
    assert (before, after) == (reach_before, reach_after)


def influenced(network: nn.Module, shape: list[int], line: int, at: int, faint: float) -> tuple[int, int]:
    """First and last output voxel along an axis that an impulse at an input voxel changes.

    The switch of a pooling points at the first voxel of a cell of zeros; a faint slope makes it point at the last.
    """
    others = [axis for axis in range(2 + len(shape)) if axis != 2 + line]
    slope = torch.arange(shape[line], dtype=torch.float64).reshape([-1 if a == line else 1 for a in range(len(shape))])
    empty = (slope * faint).expand(1, 1, *shape)
    impulse = empty.clone()
    voxel = [side // 2 for side in shape]
    voxel[line] = at
    impulse[(0, 0, *voxel)] = 1.0
    with torch.inference_mode():
        changed = (network(impulse) - network(empty)).abs().amax(dim=others) > 0
    voxels = np.flatnonzero(changed.numpy())
    return int(voxels[0]), int(voxels[-1])


@pytest.mark.parametrize(("name", "arguments", "axis"), CASES)
def test_changing_voxels_beyond_the_reach_changes_nothing(name: str, arguments: dict[str, Any], axis: int) -> None:
    network = random_network(name, {**arguments, "width": 2})
    footprint = network_footprint(network)
    before, after, stride, margin, length = sizes_along(footprint, axis)
    shape = shape_along(footprint, axis, length)
    line = len(shape) - 3 + axis
    raw = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    for phase in sorted({0, 1, stride - 1}):
        at = length // 2 // stride * stride + phase  # an input voxel; its output is at - margin
        changed = raw.clone()
        changed.narrow(2 + line, 0, at - before).add_(9.0)
        changed.narrow(2 + line, at + after + 1, length - at - after - 1).sub_(9.0)
        with torch.inference_mode():
            before_change, after_change = (network(x).select(2 + line, at - margin) for x in (raw, changed))
        torch.testing.assert_close(before_change, after_change, rtol=0, atol=1e-5)


def test_neighbouring_sections_as_channels_are_a_margin_along_z() -> None:
    footprint = network_footprint(random_network("unet", {"width": 1, "depth": 1, "padded": True, "in_channels": 5}))
    assert (footprint.dimensions, footprint.stride[0]) == (2, 1)
    assert (footprint.reach_before[0], footprint.reach_after[0], footprint.margin[0], footprint.smallest[0]) == (
        2,
        2,
        2,
        5,
    )
    with pytest.raises(ModelError, match="4 sections as channels has no middle"):
        network_footprint(random_network("unet", {"width": 1, "depth": 1, "in_channels": 4}))


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
        output = network(raw[..., :side, :side])[..., inside, inside]
        for shift in range(1, stride + 1):
            shifted = network(raw[..., shift : shift + side, :side])
            aligned = shifted[..., inside.start - shift : inside.stop - shift, inside]
            same = torch.allclose(output, aligned, rtol=0, atol=1e-5)
            assert same == (shift == stride), f"shift {shift}"


def test_published_networks_have_their_known_reach_and_sizes() -> None:
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
