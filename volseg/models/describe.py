"""Footprint, parameters, layers and cost of a network, without allocating its weights."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from volseg.models.footprint import network_footprint
from volseg.models.model import SkipInit
from volseg.models.networks.layers import CONVOLUTIONS, DECONVOLUTIONS
from volseg.models.receptive_field import AxisGraph, traced
from volseg.models.registry import NETWORKS, build_network

if TYPE_CHECKING:
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
    with torch.device("meta"), SkipInit():
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

    The size of every activation is linear in the size of the input along each axis, so an input that is a stride longer
    states how many voxels of each layer there are per voxel of input. The cost of halo, margin and padding is not
    included.

    Args:
        network: its weights are not read.
        footprint: of the network.
    """
    graph = traced(network)
    axes = [AxisGraph(graph, axis) for axis in range(footprint.dimensions)]
    first = 3 - footprint.dimensions
    smallest, strides = footprint.smallest[first:], footprint.stride[first:]
    short = [axis.sizes(n) for axis, n in zip(axes, smallest, strict=True)]
    long = [axis.sizes(n + stride) for axis, n, stride in zip(axes, smallest, strides, strict=True)]
    operations = 0
    for node in axes[0].nodes:
        module = axes[0].module(node)
        if isinstance(module, CONVOLUTIONS + DECONVOLUTIONS):
            # Every weight meets each voxel of the output, or of the input of a transposed convolution.
            met = node.all_input_nodes[0] if isinstance(module, DECONVOLUTIONS) else node
            operations += 2 * module.weight.numel() * prod(b[met] - a[met] for a, b in zip(short, long, strict=True))
    return operations / prod(strides)


def _convolutions(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, CONVOLUTIONS + DECONVOLUTIONS)]
