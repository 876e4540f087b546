"""The networks are those of the papers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.makers import random_network
from volseg.errors import ConfigError
from volseg.models.fusionnet import FusionNet, Residual, conv_block
from volseg.models.layers import CropConcat
from volseg.models.registry import NETWORKS, build_network
from volseg.models.unet import UNet


def shapes_of(network: nn.Module, kind: type[nn.Module], inputs: torch.Tensor) -> list[tuple[int, ...]]:
    """Output shapes of all modules of a kind, in the order they run."""
    seen: list[tuple[int, ...]] = []
    for module in network.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape[1:])))
    network(inputs)
    return seen


def test_unets_sizes_are_those_of_its_figure() -> None:
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


def test_unets_drop_out_stands_at_the_end_of_the_contracting_path() -> None:
    network = UNet(width=2)
    assert isinstance(network.get_submodule("bottom.1"), nn.Dropout)
    assert sum(isinstance(m, nn.Dropout) for m in network.modules()) == 1


def test_weights_are_drawn_as_the_unet_paper_says() -> None:
    torch.manual_seed(0)
    layer = UNet(width=64, depth=1).get_submodule("down.0.2")
    assert isinstance(layer, nn.Conv2d)
    assert layer.weight.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.02)


def test_fusionnets_sizes_are_those_of_its_table() -> None:
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


def test_fusionnets_long_skips_are_sums() -> None:
    network = random_network("fusionnet", {"width": 4, "depth": 1})
    x = torch.randn(1, 1, 16, 16)
    with torch.inference_mode():
        skip = network.down[0](x)  # type: ignore[index,operator]  # a ModuleList
        raised = network.deconvolutions[0](network.bridge(network.pool(skip)))  # type: ignore[index,operator]
        expected = network.head(network.up[0](raised + skip))  # type: ignore[index,operator]
        torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_width_and_depth_are_arguments(name: str) -> None:
    small, large = (build_network(name, {"width": width, "depth": 2}) for width in (2, 4))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in large.parameters())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet", {}, "there is no network 'resnet'; choose from fusionnet, unet"),
        ("unet", {"wdth": 3}, "does not take these arguments: .*wdth"),
        ("unet", {"width": 0}, "width 0 and depth 4 must both be at least 1"),
        ("unet", {"dropout": 1.5}, "dropout 1.5 must be"),
    ],
)
def test_what_is_no_network_is_refused(name, arguments, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build_network(name, arguments)
