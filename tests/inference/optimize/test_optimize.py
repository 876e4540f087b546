"""The network made ready computes what the plain one does, and no more of it than is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from volseg.inference.optimize.crop_halo import CropView, cropped
from volseg.inference.optimize.fold_batch_norm import without_norms
from volseg.inference.optimize.onednn import PackedConvolution, can_pack, packed
from volseg.inference.optimize.optimize import prepared, specialized
from volseg.models.footprint import network_footprint
from volseg.models.networks.layers import NORMS, Shift
from volseg.models.receptive_field import traced
from volseg.testing.factories import blobs, random_network, rounding_allowed

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
    """A tile of blobs with the exact halo around a core; its core in the output; the tile's sides."""
    footprint = network_footprint(network)
    flat, halo = footprint.dimensions == 2, footprint.exact_halo()
    shape = footprint.input_shape((1 if flat else 2 * footprint.stride[0], core, core), halo)
    voxels = torch.from_numpy(blobs(shape).astype(np.float32) / 60 - 2)
    axes = slice(1, None) if flat else slice(0, None)
    cores = (1 if flat else 2 * footprint.stride[0], core, core)
    kept = [(h - m, h - m + c - 1) for h, m, c in zip(halo, footprint.margin, cores, strict=True)][axes]
    return (voxels[None] if flat else voxels[None, None]), kept, tuple(list(shape)[axes])


def core_of(output: torch.Tensor, kept: list[tuple[int, int]], start: tuple[int, ...] | None = None) -> torch.Tensor:
    begin = start or (0,) * len(kept)
    return output[:, :, *(slice(a - s, b + 1 - s) for (a, b), s in zip(kept, begin, strict=True))]


@pytest.mark.parametrize(("kind", "arguments"), NETWORKS)
def test_what_is_made_ready_computes_the_same_core(kind: str, arguments: dict) -> None:
    network = random_network(kind, arguments)
    x, kept, lengths = tile(network, 2 * network_footprint(network).stride[2])
    optimized = specialized(prepared(network, "cpu", "float32"), lengths, kept, {})
    with torch.inference_mode():
        plain, made = core_of(network(x), kept), core_of(optimized.network(x.clone()), kept, optimized.start)
        truth = core_of(network.double()(x.double()), kept)
    assert truth.std() > 0
    torch.testing.assert_close(made.double(), truth, rtol=0, atol=rounding_allowed(plain, truth))


@pytest.mark.parametrize(("kind", "arguments"), [case for case in NETWORKS if case[0] in ("fusionnet", "unet")])
def test_no_norm_is_left(kind: str, arguments: dict) -> None:
    folded = without_norms(random_network(kind, arguments))
    assert not any(isinstance(module, NORMS) for module in folded.modules())


def test_folding_leaves_the_network_alone() -> None:
    network = random_network("fusionnet", {"width": 2, "depth": 1})
    before = {name: value.clone() for name, value in network.state_dict().items()}
    without_norms(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_norm_behind_a_relu_stays_where_its_scale_is_not_positive() -> None:
    network = random_network("fusionnet", {"width": 2, "depth": 1})
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        norms[2].weight[0] = -0.5
    x, kept, _ = tile(network, 8)
    folded = without_norms(network)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == 1
    assert any(isinstance(module, Shift) for module in folded.modules())
    with torch.inference_mode():
        made, plain, truth = (core_of(each, kept) for each in (folded(x), network(x), network.double()(x.double())))
    torch.testing.assert_close(made.double(), truth, rtol=0, atol=rounding_allowed(plain, truth))


def test_a_layer_called_twice_is_not_changed_for_both() -> None:
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
        truth = network(x)
        torch.testing.assert_close(without_norms(network)(x), truth)
        torch.testing.assert_close(packed(traced(network))(x), truth)


@pytest.mark.parametrize(("kind", "arguments"), [case for case in NETWORKS if case[0].startswith(("fusion", "unet"))])
def test_cutting_changes_no_number_of_what_is_kept(kind: str, arguments: dict) -> None:
    """In float64, where sums differ by nothing that shows."""
    network = random_network(kind, arguments).double()
    x, kept, lengths = tile(network, 2 * network_footprint(network).stride[2])
    cut = cropped(traced(network), lengths, kept)
    # An unpadded U-Net shrinks by nature, and may have nothing left to cut.
    assert any(isinstance(module, CropView) for module in cut.network.modules()) or (kind, arguments) == NETWORKS[4]
    with torch.inference_mode():
        torch.testing.assert_close(
            core_of(cut.network(x.double()), kept, cut.start), core_of(network(x.double()), kept), rtol=0, atol=1e-12
        )


def test_cutting_saves_most_of_the_decoders_halo() -> None:
    network = random_network("fusionnet", {"width": 2, "depth": 3})
    _, kept, lengths = tile(network, 32)
    halo = network_footprint(network).exact_halo()[1]
    cut = cropped(traced(network), lengths, kept)
    with torch.inference_mode():
        made = cut.network(torch.zeros(1, 1, *lengths))
    assert made.shape[-1] <= 32 + 2 * 16 < 32 + 2 * halo


@pytest.mark.skipif(not can_pack(torch.float32), reason="this torch has no oneDNN operators to pack for")
def test_packed_convolutions_take_their_relus_with_them() -> None:
    network = random_network("fusionnet", {"width": 2, "depth": 1})
    known: dict[str, PackedConvolution] = {}
    graph = packed(without_norms(network), known)
    assert not any(isinstance(module, nn.Conv2d | nn.ReLU) for module in graph.modules())
    again = packed(without_norms(network), known)
    assert {id(m) for m in graph.modules() if isinstance(m, PackedConvolution)} == {
        id(m) for m in again.modules() if isinstance(m, PackedConvolution)
    }
