"""Layers, parameters and cost of networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from volseg.errors import ConfigError
from volseg.models.describe import describe_network, flops_per_voxel
from volseg.models.footprint import network_footprint
from volseg.models.networks.sliding_window import SlidingWindow
from volseg.models.registry import NETWORKS, build_network

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in sorted(NETWORKS)),
    ("fcn8s", {"padded": True}),
    ("unet", {"in_channels": 3}),
    ("unet", {"width": 4, "depth": 2, "kernel": [1, 3, 3], "pool": [[1, 2, 2], [2, 2, 2]]}),
]


def test_operations_of_a_small_unet_equal_a_count_by_hand() -> None:
    down = 9 * (1 * 2 + 2 * 2)
    bottom = 9 * (2 * 4 + 4 * 4) / 4  # on a quarter of the voxels
    up = 4 * (4 * 2) / 4 + 9 * (4 * 2 + 2 * 2) + 2 * 2
    for padded in (True, False):
        description = describe_network("unet", {"width": 2, "depth": 1, "padded": padded, "batch_norm": padded})
        assert description.flops_per_voxel == 2 * (down + bottom + up)
        assert description.layers == 8


def test_operations_of_a_small_3d_fusionnet_equal_a_count_by_hand() -> None:
    arguments = {"width": 1, "depth": 1, "kernel": [[1, 3, 3], [3, 3, 3]], "pool": [1, 2, 2]}
    full = 9 * 5
    bridge = 27 * (1 * 2 + 4 * 2 * 2) / 4
    description = describe_network("fusionnet", arguments)
    assert description.flops_per_voxel == 2 * (full + bridge + 4 * 2 * 1 / 4 + full + 1)
    assert (description.layers, description.footprint.dimensions) == (17, 3)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        # Slow, since it has two FusionNets.
        pytest.param(*case, marks=[pytest.mark.slow] if case[0] == "fusionnet_chain" else [])
        for case in VARIANTS
    ],
)
def test_the_cost_of_larger_tiles_converges_to_the_limit(name: str, arguments: dict[str, Any]) -> None:
    """An input of sides n costs a + b / n per voxel and axis, so the difference halves as n doubles."""
    with torch.device("meta"):
        network = build_network(name, arguments).eval()
    footprint = network_footprint(network)
    limit = flops_per_voxel(network, footprint)

    def cost(strides: int) -> float:
        sections, *sides = (n + strides * s for n, s in zip(footprint.smallest, footprint.stride, strict=True))
        deep = footprint.dimensions == 3
        shape = (1, 1, sections, *sides) if deep else (1, footprint.smallest[0], *sides)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.empty(shape, device="meta"))
        return counter.get_total_flops() / (sides[0] * sides[1] * (sections if deep else 1))

    assert cost(1 << 15) == pytest.approx(limit, rel=1e-2)
    assert abs(cost(1 << 14) - limit) <= 0.6 * abs(cost(1 << 13) - limit) + 1e-9 * limit


@pytest.mark.parametrize(
    ("name", "layers", "millions"),
    [
        ("unet", 23, 31.03),
        ("fusionnet", 50, 75.05),
        ("fusionnet_chain", 100, 150.10),
        ("fcn32s", 16, 134.27),
        ("fcn16s", 17, 134.27),
        ("fcn8s", 18, 134.27),
        ("deconvnet", 30, 251.80),
        ("sliding_window", 6, 0.219),
    ],
)
def test_layers_and_parameters_are_the_published_ones(name: str, layers: int, millions: float) -> None:
    """FCN-32s has the 16 layers of VGG16; each finer one adds a score. Fixed upsampling does not count."""
    description = describe_network(name)
    assert description.layers == layers
    assert description.parameters / 1e6 == pytest.approx(millions, abs=0.006)
    assert description.summary.endswith(".")


def test_the_dense_form_saves_a_factor_of_over_five_hundred() -> None:
    with torch.device("meta"):
        network = SlidingWindow().eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.classify(torch.empty(1, 1, 95, 95))
    assert counter.get_total_flops() / describe_network("sliding_window").flops_per_voxel == pytest.approx(555, abs=1)


def test_describing_does_not_allocate_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[str] = []
    original = nn.init.normal_

    def recorded(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        devices.append(tensor.device.type)
        return original(tensor, *args, **kwargs)

    monkeypatch.setattr(nn.init, "normal_", recorded)
    describe_network("unet", {"width": 512})
    assert set(devices) == {"meta"}


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="does not take these arguments"):
        describe_network("unet", {"wdth": 3})
