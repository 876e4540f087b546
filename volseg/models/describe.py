"""Footprint, parameters, layers and cost of a network, without allocating its weights."""

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
class NetworkDescription:
    """Sizes and cost of a network.

    Attributes:
        footprint: reach, stride, margin and input sizes.
        parameters: number of parameters, including fixed interpolation.
        layers: number of learned convolutions and transposed convolutions.
        flops_per_voxel: cost per voxel of a large tile; see `flops_per_voxel`.
        summary: one line.
    """

    footprint: Footprint
    parameters: int
    layers: int
    flops_per_voxel: float
    summary: str


def describe_network(name: str, arguments: dict[str, Any] | None = None) -> NetworkDescription:
    """Describe a network, without allocating its weights.

    Args:
        name: name in the registry.
        arguments: of the network's class; the published ones by default.

    Raises:
        ConfigError: an unknown network or argument.
    """
    with torch.device("meta"):
        network = build_network(name, arguments or {}).eval()
    footprint = network_footprint(network)
    return NetworkDescription(
        footprint=footprint,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        layers=sum(layer.weight.requires_grad for layer in _convolutions(network)),
        flops_per_voxel=flops_per_voxel(network, footprint),
        summary=(NETWORKS[name].__doc__ or "").splitlines()[0],
    )


def flops_per_voxel(network: nn.Module, footprint: Footprint) -> float:
    """Floating-point operations of the convolutions per voxel of a large input; a multiply-add counts as two.

    The size of every activation is linear in the size of the input along each axis, so the operations are a polynomial
    of degree one in each side. Its leading coefficient is the exact cost per voxel of a large tile: the mixed
    difference between inputs that are a stride longer along some axes and those that are not. The cost of halo, margin
    and padding is not included.

    Args:
        network: on the meta device, in eval mode.
        footprint: of the network.
    """
    first = 3 - footprint.dimensions
    smallest, stride = list(footprint.smallest)[first:], list(footprint.stride)[first:]
    difference = 0
    for steps in product((0, 1), repeat=footprint.dimensions):
        sides = [n + step * s for n, step, s in zip(smallest, steps, stride, strict=True)]
        sign = -1 if (footprint.dimensions - sum(steps)) % 2 else 1
        difference += sign * _flops(network, sides)
    return difference / prod(stride)


def _flops(network: nn.Module, sides: Sequence[int]) -> int:
    """Operations of a forward pass, counted on the meta device."""
    inputs = torch.empty(1, _convolutions(network)[0].in_channels, *sides, device="meta")
    with EXCLUSIVE, torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(inputs)
    return int(counter.get_total_flops())


def _convolutions(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, CONVOLUTIONS + DECONVOLUTIONS)]
