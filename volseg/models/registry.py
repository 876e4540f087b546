"""The networks by name. Strings, so that naming one does not import torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from volseg.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

NETWORKS = {
    "deconvnet": "volseg.models.networks.deconvnet:DeconvNet",
    "fcn16s": "volseg.models.networks.fcn:FCN16s",
    "fcn32s": "volseg.models.networks.fcn:FCN32s",
    "fcn8s": "volseg.models.networks.fcn:FCN8s",
    "fusionnet": "volseg.models.networks.fusionnet:FusionNet",
    "fusionnet_chain": "volseg.models.networks.fusionnet:FusionNetChain",
    "sliding_window": "volseg.models.networks.sliding_window:SlidingWindow",
    "unet": "volseg.models.networks.unet:UNet",
}


def network_class(name: str) -> Any:
    """The class of a network.

    Raises:
        ConfigError: no such network.
    """
    if name not in NETWORKS:
        raise ConfigError(f"there is no network {name!r}; choose from {', '.join(sorted(NETWORKS))}")
    module, _, attribute = NETWORKS[name].partition(":")
    return getattr(import_module(module), attribute)


def build_network(name: str, arguments: dict[str, Any]) -> nn.Module:
    """Make a network, freshly initialised.

    Raises:
        ConfigError: no such network, or arguments that it does not take.
    """
    kind = network_class(name)
    try:
        network: nn.Module = kind(**arguments)
    except TypeError as error:
        raise ConfigError(f"network {name!r} does not take these arguments: {error}") from error
    return network
