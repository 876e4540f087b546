"""Networks of other people's layouts, small, for tests: the names and the function of each repository, in own code."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from volseg.models.networks.layers import NORMS

if TYPE_CHECKING:
    from torch import Tensor


def named(**modules: nn.Module) -> nn.Module:
    """A module that only holds others."""
    holder = nn.Module()
    for name, module in modules.items():
        holder.add_module(name, module)
    return holder


def conv_norm_relu(channels: list[int], *, bias: bool, norm: bool = True) -> nn.Sequential:
    """3x3 convolutions between these channels, each with a norm and ReLU."""
    layers: list[nn.Module] = []
    for a, b in pairwise(channels):
        layers += [nn.Conv2d(a, b, 3, padding=1, bias=bias), *([nn.BatchNorm2d(b)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers)


class MilesialUNet(nn.Module):
    """milesial/Pytorch-UNet; `old` is its layout of 2019, with biases and other names."""

    def __init__(self, channels: int = 1, classes: int = 2, width: int = 4, depth: int = 4, *, bilinear: bool = False,
                 old: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.depth = depth

        def block(*sizes: int) -> nn.Module:
            double = conv_norm_relu(list(sizes), bias=old)
            return named(conv=double) if old else named(double_conv=double)

        factor = 2 if bilinear else 1
        widths = [width << level for level in range(depth)] + [(width << depth) // factor]
        first = block(channels, width, width)
        self.inc = named(conv=first) if old else first
        for level in range(1, depth + 1):
            path = nn.Sequential(nn.MaxPool2d(2), block(widths[level - 1], widths[level], widths[level]))
            self.add_module(f"down{level}", named(mpconv=path) if old else named(maxpool_conv=path))
        for number, level in enumerate(range(depth, 0, -1), 1):
            a, b = width << level, width << level - 1
            upsample: nn.Module = nn.ConvTranspose2d(a, b, 2, stride=2)
            if bilinear:
                upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            out = b // factor if level > 1 else b
            conv = block(a, b if bilinear else out, out)
            self.add_module(f"up{number}", named(up=upsample, conv=conv))
        self.outc = named(conv=nn.Conv2d(width, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        def run(module: nn.Module, x: Tensor) -> Tensor:
            for child in module.modules():
                if isinstance(child, (nn.Conv2d, nn.MaxPool2d, nn.ReLU, *NORMS)):
                    x = child(x)
            return x

        skips = [run(self.inc, x)]
        for level in range(1, self.depth + 1):
            skips.append(run(self.get_submodule(f"down{level}"), skips[-1]))
        x = skips.pop()
        for number in range(1, self.depth + 1):
            up: Any = self.get_submodule(f"up{number}")
            x = run(up.conv, torch.cat([skips.pop(), up.up(x)], dim=1))
        return run(self.outc, x)


class BrainUNet(nn.Module):
    """mateuszbuda/brain-segmentation-pytorch: upsampled features come first."""

    def __init__(self, channels: int = 1, classes: int = 1, width: int = 4, depth: int = 4) -> None:
        super().__init__()
        self.depth = depth

        def block(name: str, a: int, b: int) -> nn.Sequential:
            layers: dict[str, nn.Module] = {}
            for number, channels_in in ((1, a), (2, b)):
                layers[f"{name}conv{number}"] = nn.Conv2d(channels_in, b, 3, padding=1, bias=False)
                layers[f"{name}norm{number}"] = nn.BatchNorm2d(b)
                layers[f"{name}relu{number}"] = nn.ReLU()
            sequence = nn.Sequential()
            for key, layer in layers.items():
                sequence.add_module(key, layer)
            return sequence

        for level in range(1, depth + 1):
            b = width << level - 1
            self.add_module(f"encoder{level}", block(f"enc{level}", channels if level == 1 else b // 2, b))
        self.bottleneck = block("bottleneck", width << depth - 1, width << depth)
        for level in range(depth, 0, -1):
            b = width << level - 1
            self.add_module(f"upconv{level}", nn.ConvTranspose2d(2 * b, b, 2, stride=2))
            self.add_module(f"decoder{level}", block(f"dec{level}", 2 * b, b))
        self.conv = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level in range(1, self.depth + 1):
            skips.append(self.get_submodule(f"encoder{level}")(x))
            x = nn.functional.max_pool2d(skips[-1], 2)
        x = self.bottleneck(x)
        for level in range(self.depth, 0, -1):
            x = self.get_submodule(f"upconv{level}")(x)
            x = self.get_submodule(f"decoder{level}")(torch.cat([x, skips.pop()], dim=1))
        out: Tensor = self.conv(x)
        return out


class ListedFusionNet(nn.Module):
    """A FusionNet that defines its decoder, finest level first, before its encoder, and its norms last."""

    def __init__(self, width: int = 2, depth: int = 3) -> None:
        super().__init__()
        self.depth = depth

        def level(a: int, b: int) -> nn.Module:
            convolutions = {f"conv{n}": nn.Conv2d(b if n else a, b, 3, padding=1, bias=False) for n in range(5)}
            return named(**convolutions, **{f"bn{n}": nn.BatchNorm2d(b) for n in range(5)})

        self.out = nn.Conv2d(width, 1, 1)
        for number in range(depth):
            b = width << number
            self.add_module(
                f"dec{number}", named(up=nn.ConvTranspose2d(2 * b, b, 2, stride=2), **{"body": level(b, b)})
            )
        for number in range(depth + 1):
            self.add_module(f"enc{number}", level(1 if number == 0 else width << number - 1, width << number))

    def forward(self, x: Tensor) -> Tensor:
        def run(level: Any, x: Tensor) -> Tensor:
            def one(n: int, x: Tensor) -> Tensor:
                out: Tensor = getattr(level, f"bn{n}")(getattr(level, f"conv{n}")(x).relu())
                return out

            x = one(0, x)
            return one(4, x + one(3, one(2, one(1, x))))

        skips = []
        for number in range(self.depth + 1):
            x = run(self.get_submodule(f"enc{number}"), x if number == 0 else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        x = skips.pop()
        for number in reversed(range(self.depth)):
            decoder: Any = self.get_submodule(f"dec{number}")
            x = run(decoder.body, decoder.up(x) + skips.pop())
        out: Tensor = self.out(x)
        return out


def trained(network: nn.Module, channels: int = 1) -> nn.Module:
    """The network with random norms and statistics, in eval mode."""
    torch.manual_seed(1)
    for norm in (module for module in network.modules() if isinstance(module, NORMS)):
        norm.momentum = None
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
    with torch.no_grad():
        network.train()(torch.randn(2, channels, 64, 64))
    return network.eval()
