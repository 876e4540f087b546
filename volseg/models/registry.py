"""The networks by name; naming one does not import torch."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from volseg.errors import ConfigError, VolsegError
from volseg.models.tensor_header import MAX_PARAMETERS
from volseg.registry import Registry
from volseg.text import did_you_mean

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
    known = _argument_names(network_class)
    if known is not None and (wrong := [argument for argument in arguments if argument not in known]):
        listed = ", ".join(f"{argument!r}{_hint(argument, known, network_class)}" for argument in wrong)
        raise ConfigError(f"network {name!r} does not take these arguments: {listed}; it takes {', '.join(known)}")
    if name in NETWORKS.builtins:
        _refuse_large(name, network_class, arguments)
    return _build(name, network_class, arguments)


def _build(name: str, network_class: Callable[..., nn.Module], arguments: dict[str, Any]) -> nn.Module:
    try:
        return network_class(**arguments)
    except VolsegError:
        raise
    except Exception as error:  # torch and plug-ins raise errors of many kinds
        reason = " ".join(str(error).split())
        raise ConfigError(f"network {name!r} does not take these arguments: {reason:.200}") from error


def _refuse_large(name: str, network_class: Callable[..., nn.Module], arguments: dict[str, Any]) -> None:
    """Refuse a network of more parameters than a model file may have, before any is allocated."""
    import torch  # noqa: PLC0415 - naming a network does not import torch

    with torch.device("meta"):
        network = _build(name, network_class, arguments)
    count = sum(parameter.numel() for parameter in network.parameters())
    if count > MAX_PARAMETERS:
        raise ConfigError(
            f"network {name!r} with {arguments} has {count} parameters, more than {MAX_PARAMETERS}; make it narrower "
            "or less deep"
        )


def _argument_names(network_class: Callable[..., nn.Module]) -> tuple[str, ...] | None:
    """Names of the arguments of a network's class; None if it takes any."""
    parameters = signature(network_class).parameters.values()
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return tuple(parameter.name for parameter in parameters)


def _hint(argument: str, known: tuple[str, ...], network_class: Callable[..., nn.Module]) -> str:
    """What a user probably meant by an argument; whether a network is `padded` follows from its margin."""
    if argument != "padded":
        return did_you_mean(argument, known)
    import torch  # noqa: PLC0415 - naming a network does not import torch

    from volseg.models.footprint import network_footprint  # noqa: PLC0415 - likewise

    with torch.device("meta"):
        margin = network_footprint(network_class()).margin
    if any(margin):
        return " (its convolutions are never padded; volseg reads the margin that they need: leave it out)"
    return " (its output is always as large as its input: leave it out)"
