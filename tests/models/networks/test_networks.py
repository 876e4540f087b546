"""The networks agree with the papers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from volseg.errors import ConfigError
from volseg.models.footprint import network_footprint
from volseg.models.networks.fcn import bilinear
from volseg.models.networks.fusionnet import FusionNet, FusionNetChain, Residual, conv_block
from volseg.models.networks.layers import CropConcat, MaxUnpool2d
from volseg.models.networks.sliding_window import SlidingWindow
from volseg.models.networks.unet import UNet
from volseg.models.registry import NETWORKS, build_network
from volseg.testing.factories import random_network


def shapes_of(network: nn.Module, kind: type[nn.Module], inputs: torch.Tensor) -> list[tuple[int, ...]]:
    """Output shapes of all modules of a kind, in the order of execution."""
    shapes: list[tuple[int, ...]] = []
    for module in network.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    network(inputs)
    return shapes


def test_unet_has_the_sizes_of_its_figure() -> None:
    with torch.device("meta"):
        network = UNet()
        sides = [shape[-1] for shape in shapes_of(network, nn.Conv2d, torch.zeros(1, 1, 572, 572))]
    assert sides == [570, 568, 282, 280, 138, 136, 66, 64, 30, 28, 54, 52, 102, 100, 198, 196, 390, 388, 388]
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convolutions) == 23


def test_unet_concatenates_the_centre_crop() -> None:
    skip, upsampled = torch.arange(36.0).reshape(1, 1, 6, 6), torch.zeros(1, 2, 2, 2)
    joined = CropConcat()(skip, upsampled)
    assert joined.shape == (1, 3, 2, 2)
    torch.testing.assert_close(joined[0, 0], skip[0, 0, 2:4, 2:4])


def test_unet_has_dropout_at_the_end_of_the_contracting_path() -> None:
    network = UNet(width=2)
    assert isinstance(network.get_submodule("bottom.1"), nn.Dropout)
    assert sum(isinstance(m, nn.Dropout) for m in network.modules()) == 1


def test_weights_are_initialised_as_in_the_unet_paper() -> None:
    torch.manual_seed(0)
    layer = UNet(width=64, depth=1).get_submodule("down.0.2")
    assert isinstance(layer, nn.Conv2d)
    assert layer.weight.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.02)


def test_fusionnet_has_the_sizes_of_its_table() -> None:
    with torch.device("meta"):
        network = FusionNet()
        residuals = shapes_of(network, Residual, torch.zeros(1, 1, 640, 640))
        output = FusionNet()(torch.zeros(1, 1, 640, 640))
    down = [(64, 640, 640), (128, 320, 320), (256, 160, 160), (512, 80, 80)]
    assert residuals == [*down, (1024, 40, 40), *reversed(down)]
    assert output.shape == (1, 1, 640, 640)


def test_a_conv_block_is_convolution_relu_batch_norm() -> None:
    assert [type(part) for part in conv_block(3, 5)] == [nn.Conv2d, nn.ReLU, nn.BatchNorm2d]


def test_a_residual_block_adds_its_input_to_three_conv_blocks() -> None:
    block = Residual(3).eval()
    for part in block.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.zeros_(part.weight)
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(block(x), x)
    assert sum(isinstance(m, nn.Conv2d) for m in block.modules()) == 3


def test_long_skips_of_fusionnet_are_sums() -> None:
    network = random_network("fusionnet", {"width": 4, "depth": 1})
    x = torch.randn(1, 1, 16, 16)
    with torch.inference_mode():
        skip = network.down[0](x)  # type: ignore[index,operator]  # a ModuleList
        upsampled = network.deconvolutions[0](network.bridge(network.pools[0](skip)))  # type: ignore[index,operator]
        expected = network.head(network.up[0](upsampled + skip))  # type: ignore[index,operator]
        torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_has_a_width(name: str) -> None:
    with torch.device("meta"):
        small, large = (build_network(name, {"width": width}) for width in (2, 4))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in large.parameters())


@pytest.mark.parametrize("name", ["unet", "fusionnet"])
def test_depth_kernels_and_poolings_are_arguments(name: str) -> None:
    """Also per level, for 3-D networks."""
    arguments = {"kernel": [[1, 3, 3], [3, 3, 3]], "pool": [1, 2, 2], "depth": 1, "width": 2}
    deep = build_network(name, arguments)
    x = torch.randn(1, 1, 6, 44, 44)
    with torch.inference_mode():
        output = deep.eval()(x)
    assert output.ndim == 5
    kernels = {tuple(m.kernel_size) for m in deep.modules() if isinstance(m, nn.Conv3d)}
    assert kernels == {(1, 3, 3), (3, 3, 3), (1, 1, 1)}


def test_fcn_sums_scores_level_by_level() -> None:
    torch.manual_seed(0)
    network = build_network("fcn8s", {"width": 2, "padded": True}).eval()
    x = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        pooled, features = [], x
        for stage in network.stages:  # type: ignore[union-attr]  # a ModuleList
            features = stage(features)
            pooled.append(features)
        scores = network.head(network.classifier(features))  # type: ignore[operator]
        scores = network.doublings[0](scores) + network.scores[0](pooled[3])  # type: ignore[index,operator]
        scores = network.doublings[1](scores) + network.scores[1](pooled[2])  # type: ignore[index,operator]
        torch.testing.assert_close(network(x), network.upsample(scores))  # type: ignore[operator]
    assert scores.shape[-1] == 8


@pytest.mark.parametrize(("name", "scores"), [("fcn32s", 0), ("fcn16s", 1), ("fcn8s", 2)])
def test_finer_fcns_sum_more_scores(name: str, scores: int) -> None:
    network = build_network(name, {"width": 1})
    assert len(network.scores) == len(network.doublings) == scores
    assert network(torch.zeros(1, 1, 90, 90)).shape == (1, 2, 90, 90)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("name", ["fcn32s", "fcn16s", "fcn8s"])
def test_crops_of_fcns_align_scores_with_pixels(name: str, padded: bool) -> None:
    """The receptive field is symmetric, so the published padding and offsets do not shift the output."""
    with torch.device("meta"):
        footprint = network_footprint(build_network(name, {"padded": padded}))
    assert footprint.reach_before == footprint.reach_after


def test_upsampling_of_fcns_is_bilinear_and_fixed() -> None:
    layer = bilinear(1, 8, padded=True)
    ramp = torch.arange(4.0)[None, None, None].expand(1, 1, 4, 4)
    expected = nn.functional.interpolate(ramp, scale_factor=8, mode="bilinear", align_corners=False)
    inner = slice(8, -8)
    torch.testing.assert_close(layer(ramp)[..., inner, inner], expected[..., inner, inner])
    assert not layer.weight.requires_grad


def test_deconvnet_has_the_sizes_of_its_table() -> None:
    with torch.device("meta"):
        network = build_network("deconvnet", {}).eval()
        sides = [shape[-1] for shape in shapes_of(network, MaxUnpool2d, torch.zeros(1, 1, 224, 224))]
        assert sides == [14, 28, 56, 112, 224]
        assert network(torch.zeros(1, 1, 224, 224)).shape == (1, 2, 224, 224)
    fc7 = network.get_submodule("classifier.3")
    assert isinstance(fc7, nn.Conv2d)
    assert fc7.out_channels == 4096


def test_switches_restore_positions() -> None:
    x = torch.randn(2, 3, 8, 8)
    values, switches = nn.functional.max_pool2d(x, 2, return_indices=True)
    unpooled = MaxUnpool2d(2)(values, switches)
    assert unpooled.shape == x.shape
    nonzero = unpooled != 0
    torch.testing.assert_close(unpooled[nonzero], x[nonzero])
    torch.testing.assert_close(nn.functional.max_pool2d(torch.where(nonzero, x, -9.0), 2), values)
    assert nonzero.sum() == values.numel()


def test_deconvnet_unpools_with_the_switches_of_the_mirrored_pooling() -> None:
    torch.manual_seed(0)
    network = build_network("deconvnet", {"width": 1}).eval()
    unpool_inputs: list[tuple[torch.Tensor, torch.Tensor]] = []
    pool_switches: list[torch.Tensor] = []
    network.unpool.register_forward_hook(lambda _, inputs, __: unpool_inputs.append(inputs))  # type: ignore[union-attr]
    network.pool.register_forward_hook(lambda _, __, output: pool_switches.append(output[1]))  # type: ignore[union-attr]
    network(torch.randn(1, 1, 224, 224))
    assert len(unpool_inputs) == len(pool_switches) == 5
    for (_, switches), expected in zip(unpool_inputs, reversed(pool_switches), strict=True):
        assert switches is expected


@pytest.mark.parametrize("window", [65, 95])
def test_the_dense_sliding_window_equals_single_windows(window: int) -> None:
    torch.manual_seed(0)
    network = SlidingWindow(width=6, hidden=10, window=window).eval().double()
    image = torch.randn(1, 1, window + 12, window + 9, dtype=torch.float64)
    with torch.inference_mode():
        dense = network(image)
        assert dense.shape == (1, 2, 13, 10)
        for y, x in [(0, 0), (1, 0), (0, 3), (7, 5), (12, 9), (5, 8)]:
            single = network.classify(image[..., y : y + window, x : x + window])
            torch.testing.assert_close(dense[0, :, y, x], single[0], rtol=0, atol=1e-12)


def test_a_chain_adds_corrections() -> None:
    torch.manual_seed(0)
    chain = FusionNetChain(length=2, width=2, depth=1).eval()
    x = torch.randn(1, 1, 16, 16)
    with torch.inference_mode():
        first = chain.links[0](x)
        correction = chain.links[1](torch.cat([x, first.sigmoid()], dim=1))
        torch.testing.assert_close(chain(x), first + correction)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet", {}, "there is no network 'resnet'; choose from deconvnet, fcn16s, .*, unet"),
        ("unet", {"wdth": 3}, "does not take these arguments: .*wdth"),
        ("unet", {"width": 0}, "width 0 and depth 4 must both be at least 1"),
        ("unet", {"dropout": 1.5}, "dropout 1.5 must be"),
        ("fcn8s", {"dropout": 1.5}, "dropout 1.5 must be"),
        ("fcn8s", {"width": 0}, "width 0 must be at least 1"),
        ("sliding_window", {"window": 64}, "window 64 is not one of 95, 65"),
        ("sliding_window", {"width": 0}, "width 0 and hidden 200 must both be at least 1"),
        ("fusionnet_chain", {"length": 1}, "length 1 must be 2 to 8"),
        ("fusionnet", {"kernel": [3, 3], "pool": [1, 2, 2]}, "must have the same axes"),
        ("fusionnet", {"kernel": [2, 2]}, "kernel .*odd"),
        ("fusionnet", {"pool": [0, 2]}, "pool .*at least 1"),
        ("unet", {"pool": [[2, 2], [2, 2]]}, "has 2 sizes for 4 levels"),
        ("unet", {"pool": [[2, 2], 2]}, "is neither a size of integers"),
        ("unet", {"pool": [2.0, 2.0]}, "is neither a size of integers"),
    ],
)
def test_invalid_networks_and_arguments_are_refused(name, arguments, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build_network(name, arguments)
