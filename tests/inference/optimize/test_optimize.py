"""An optimised network computes the same core as the trained one, and little beyond it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from volseg.inference.optimize.crop_halo import CropView, crop_halo
from volseg.inference.optimize.fold_batch_norm import fold_batch_norm
from volseg.inference.optimize.onednn import PackedConvolution, can_pack, pack_convolutions
from volseg.inference.optimize.optimize import optimize, specialized
from volseg.models.footprint import network_footprint
from volseg.models.networks.layers import NORMS, Shift
from volseg.models.receptive_field import traced
from volseg.testing.factories import blobs, random_network, rounding_tolerance

NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("fusionnet", {"width": 3, "depth": 2}),
    ("fusionnet", {"width": 2, "depth": 2, "in_channels": 3}),
    ("fusionnet", {"width": 2, "depth": 2, "kernel": [[1, 3, 3], [3, 3, 3], [3, 3, 3]], "pool": [1, 2, 2]}),
    ("fusionnet_chain", {"width": 2, "depth": 1, "length": 2}),
    ("unet", {"width": 3, "depth": 2}),
    ("unet", {"width": 3, "depth": 2, "padded": True, "batch_norm": True}),
    ("fcn8s", {"width": 2}),
    ("deconvnet", {"width": 1}),
    ("sliding_window", {"width": 4}),
]


def tile(network: nn.Module, core: int) -> tuple[torch.Tensor, list[tuple[int, int]], tuple[int, ...]]:
    """A tile of blobs with the exact halo around a core; the core in the output; the tile's lengths."""
    footprint = network_footprint(network)
    flat, halo = footprint.dimensions == 2, footprint.exact_halo()
    shape = footprint.input_shape((1 if flat else 2 * footprint.stride[0], core, core), halo)
    voxels = torch.from_numpy(blobs(shape).astype(np.float32) / 60 - 2)
    axes = slice(1, None) if flat else slice(0, None)
    cores = (1 if flat else 2 * footprint.stride[0], core, core)
    region = [(h - m, h - m + c - 1) for h, m, c in zip(halo, footprint.margin, cores, strict=True)][axes]
    return (voxels[None] if flat else voxels[None, None]), region, tuple(list(shape)[axes])


def core_of(output: torch.Tensor, core: list[tuple[int, int]], start: tuple[int, ...] | None = None) -> torch.Tensor:
    begin = start or (0,) * len(core)
    return output[:, :, *(slice(a - s, b + 1 - s) for (a, b), s in zip(core, begin, strict=True))]


@pytest.mark.parametrize(("kind", "arguments"), NETWORKS)
def test_an_optimised_network_computes_the_same_core(kind: str, arguments: dict) -> None:
    network = random_network(kind, arguments)
    x, core, lengths = tile(network, 2 * network_footprint(network).stride[2])
    optimized = specialized(optimize(network, "cpu", "float32"), lengths, core, {})
    with torch.inference_mode():
        plain, result = core_of(network(x), core), core_of(optimized.network(x.clone()), core, optimized.start)
        expected = core_of(network.double()(x.double()), core)
    assert expected.std() > 0
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=rounding_tolerance(plain, expected))


@pytest.mark.parametrize(("kind", "arguments"), [case for case in NETWORKS if case[0] in ("fusionnet", "unet")])
def test_all_batch_norms_are_folded(kind: str, arguments: dict) -> None:
    folded = fold_batch_norm(random_network(kind, arguments))
    assert not any(isinstance(module, NORMS) for module in folded.modules())


def test_folding_does_not_change_the_trained_network() -> None:
    network = random_network("fusionnet", {"width": 2, "depth": 1})
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fold_batch_norm(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_norm_behind_a_relu_stays_if_a_scale_is_not_positive() -> None:
    network = random_network("fusionnet", {"width": 2, "depth": 1})
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        norms[2].weight[0] = -0.5
    x, core, _ = tile(network, 8)
    folded = fold_batch_norm(network)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == 1
    assert any(isinstance(module, Shift) for module in folded.modules())
    with torch.inference_mode():
        result, plain, expected = (core_of(o, core) for o in (folded(x), network(x), network.double()(x.double())))
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=rounding_tolerance(plain, expected))


def test_a_layer_that_is_called_twice_is_not_changed() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.convolution(torch.relu(self.norm(self.convolution(x))))
            return out

    network = Twice().eval()
    nn.init.constant_(network.norm.running_mean, 0.3)
    x = torch.randn(1, 2, 4, 4)
    with torch.inference_mode():
        expected = network(x)
        torch.testing.assert_close(fold_batch_norm(network)(x), expected)
        torch.testing.assert_close(pack_convolutions(traced(network))(x), expected)


@pytest.mark.parametrize(("kind", "arguments"), [case for case in NETWORKS if case[0].startswith(("fusion", "unet"))])
def test_cropping_does_not_change_the_core(kind: str, arguments: dict) -> None:
    """In float64, in which the order of sums does not matter."""
    network = random_network(kind, arguments).double()
    x, core, lengths = tile(network, 2 * network_footprint(network).stride[2])
    cropped, start = crop_halo(traced(network), lengths, core)
    # An unpadded U-Net shrinks by design, and may need no crop.
    assert any(isinstance(module, CropView) for module in cropped.modules()) or (kind, arguments) == NETWORKS[4]
    with torch.inference_mode():
        torch.testing.assert_close(
            core_of(cropped(x.double()), core, start), core_of(network(x.double()), core), rtol=0, atol=1e-12
        )


def test_cropping_saves_most_of_the_decoders_halo() -> None:
    network = random_network("fusionnet", {"width": 2, "depth": 3})
    _, core, lengths = tile(network, 32)
    halo = network_footprint(network).exact_halo()[1]
    cropped, _ = crop_halo(traced(network), lengths, core)
    with torch.inference_mode():
        output = cropped(torch.zeros(1, 1, *lengths))
    assert output.shape[-1] <= 32 + 2 * 16 < 32 + 2 * halo


@pytest.mark.skipif(not can_pack(torch.float32), reason="this torch lacks the oneDNN operators")
def test_packed_convolutions_include_their_relus_and_are_cached() -> None:
    network = random_network("fusionnet", {"width": 2, "depth": 1})
    cache: dict[str, PackedConvolution] = {}
    graph = pack_convolutions(fold_batch_norm(network), cache)
    assert not any(isinstance(module, nn.Conv2d | nn.ReLU) for module in graph.modules())
    again = pack_convolutions(fold_batch_norm(network), cache)
    assert {id(m) for m in graph.modules() if isinstance(m, PackedConvolution)} == {
        id(m) for m in again.modules() if isinstance(m, PackedConvolution)
    }
