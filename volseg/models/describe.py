"""A network as published, described without making its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from volseg.models.footprint import network_footprint
from volseg.models.registry import build_network, network_class

if TYPE_CHECKING:
    from volseg.blocks import Footprint


def describe_network(name: str) -> tuple[Footprint, int, str]:
    """Footprint, number of parameters and one-line summary of a network with its default arguments."""
    with torch.device("meta"):
        network = build_network(name, {})
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return network_footprint(network), parameters, (network_class(name).__doc__ or "").splitlines()[0]
