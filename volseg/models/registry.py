"""The networks by name; naming one does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volseg.errors import ConfigError
from volseg.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

NETWORKS: Registry[Callable[..., nn.Module]] = Registry(
    "volseg.networks",
    "network",
    {
        "deconvnet": "volseg.models.networks.deconvnet:DeconvNet",
        "fcn16s": "volseg.models.networks.fcn:FCN16s",
        "fcn32s": "volseg.models.networks.fcn:FCN32s",
        "fcn8s": "volseg.models.networks.fcn:FCN8s",
        "fusionnet": "volseg.models.networks.fusionnet:FusionNet",
        "fusionnet_chain": "volseg.models.networks.fusionnet:FusionNetChain",
        "sliding_window": "volseg.models.networks.sliding_window:SlidingWindow",
        "unet": "volseg.models.networks.unet:UNet",
    },
)
"""Name -> class of the network; plug-ins may add to them."""


def build_network(name: str, arguments: dict[str, Any]) -> nn.Module:
    """Build a network with freshly drawn weights.

    Raises:
        ConfigError: an unknown network, or arguments that it does not take.
    """
    network_class = NETWORKS[name]
    try:
        return network_class(**arguments)
    except TypeError as error:
        raise ConfigError(f"network {name!r} does not take these arguments: {error}") from error
