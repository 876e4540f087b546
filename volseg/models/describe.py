"""What is known of a network without its weights: footprint, parameters, layers, cost."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from volseg.models.footprint import network_footprint
from volseg.models.networks.layers import CONVOLUTIONS, DECONVOLUTIONS
from volseg.models.receptive_field import EXCLUSIVE
from volseg.models.registry import NETWORKS, build_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from volseg.blocks import Footprint


@dataclass(frozen=True, slots=True)
class Description:
    """A network in figures.

    Attributes:
        footprint: its reach, stride, margin and sizes.
        parameters: all of them, fixed interpolation included.
        layers: convolutions and transposed convolutions that are learned.
        flops_per_voxel: what one more voxel of a large tile costs; see `flops_per_voxel`.
        summary: one line.
    """

    footprint: Footprint
    parameters: int
    layers: int
    flops_per_voxel: float
    summary: str


def describe_network(name: str, arguments: dict[str, Any] | None = None) -> Description:
    """Describe a network, without making its weights.

    Args:
        name: its name in the registry.
        arguments: what it is made with; by default as published.

    Raises:
        ConfigError: no such network, or arguments that it does not take.
    """
    with torch.device("meta"):
        network = build_network(name, arguments or {}).eval()
    footprint = network_footprint(network)
    return Description(
        footprint=footprint,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        layers=sum(layer.weight.requires_grad for layer in _convolutions(network)),
        flops_per_voxel=flops_per_voxel(network, footprint),
        summary=(NETWORKS[name].__doc__ or "").splitlines()[0],
    )


def flops_per_voxel(network: nn.Module, footprint: Footprint) -> float:
    """Floating-point operations per voxel of a large input; a multiply-add counts as two, all but convolutions as none.

    Along each axis the size of every map is a straight line in the size of the input, so the operations are a
    polynomial of degree one in each side. Its leading coefficient is the cost per voxel of a large tile, exactly: the
    mixed difference between inputs that are a stride longer along some axes and those that are not. What a halo,
    margin or padding costs beside is not in it.

    Args:
        network: on the meta device, in eval mode.
        footprint: the network's.
    """
    first = 3 - footprint.dimensions
    smallest, stride = list(footprint.smallest)[first:], list(footprint.stride)[first:]
    difference = 0
    for longer in product((0, 1), repeat=footprint.dimensions):
        sides = [n + more * s for n, more, s in zip(smallest, longer, stride, strict=True)]
        sign = -1 if (footprint.dimensions - sum(longer)) % 2 else 1
        difference += sign * _flops(network, sides)
    return difference / prod(stride)


def _flops(network: nn.Module, sides: Sequence[int]) -> int:
    """Operations of one forward pass; on the meta device nothing is computed."""
    inputs = torch.empty(1, _convolutions(network)[0].in_channels, *sides, device="meta")
    with EXCLUSIVE, torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(inputs)
    return int(counter.get_total_flops())


def _convolutions(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, CONVOLUTIONS + DECONVOLUTIONS)]
