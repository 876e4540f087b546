"""Public U-Nets whose names of tensors state what they compute, and guesses of a network's size from shapes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import log2, prod
from typing import TYPE_CHECKING, Any

import torch

from volseg.errors import ConfigError, ModelError
from volseg.models.interop.match import fits
from volseg.models.interop.state_dict import without_prefixes
from volseg.models.registry import build_network

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from volseg.models.interop.state_dict import StateDict


@dataclass(frozen=True, slots=True)
class PublicLayout:
    """A state dict of a public U-Net.

    Attributes:
        name: repository of the network.
        state: the tensors under the names of volseg's `unet`.
        arguments: of `unet`, for the same function.
        upsampled_first: whether it concatenates the upsampled features before the skip.
    """

    name: str
    state: StateDict
    arguments: dict[str, Any]
    upsampled_first: bool


def public_layout(state: StateDict) -> PublicLayout | None:
    """Recognise a public U-Net by the names of its tensors.

    Raises:
        ModelError: it upsamples bilinearly.
    """
    for name, marker, rename, upsampled_first in _LAYOUTS:
        tensors = without_prefixes(state.tensors, lambda tensors, marker=marker: marker in tensors)  # type: ignore[misc]  # bound at once
        if marker not in tensors:
            continue
        numbers = [int(found[1]) for key in tensors if (found := re.match(r"(?:down|encoder)(\d+)\.", key))]
        renamed = {rename(key, max(numbers, default=0)) or key: tensor for key, tensor in tensors.items()}
        if "down.0.0.weight" not in renamed or "head.weight" not in renamed:
            continue
        if "upconvolutions.0.weight" not in renamed:
            raise ModelError(
                f"{state.path} is the U-Net of {name} without up1.up.weight: it upsamples bilinearly between the "
                "corners of the whole image, so blocks of it would not fit together; train it with bilinear=False, or "
                "train a unet with volseg"
            )
        width, channels = renamed["down.0.0.weight"].shape[:2]
        arguments = {
            "in_channels": channels,
            "out_channels": renamed["head.weight"].shape[0],
            "width": width,
            "depth": max(numbers, default=0),
            "padded": True,
            "batch_norm": any(key.endswith("running_mean") for key in renamed),
        }
        return PublicLayout(name, replace(state, tensors=renamed), arguments, upsampled_first)
    return None


def _milesial_name(name: str, depth: int) -> str | None:
    """Rename a tensor of milesial/Pytorch-UNet, of any year."""
    if found := re.fullmatch(r"outc\.conv\.(\w+)", name):
        return f"head.{found[1]}"
    if found := re.fullmatch(r"up(\d+)\.up\.(\w+)", name):
        return f"upconvolutions.{int(found[1]) - 1}.{found[2]}"
    block = r"(inc|down|up)(\d*)\.(?:maxpool_conv\.1\.|mpconv\.1\.|conv\.)?(?:double_conv|conv)\.(\d+\.\w+)"
    found = re.fullmatch(block, name)
    return found and f"{_block(found[1], int(found[2] or 0), depth)}.{found[3]}"


def _block(path: str, number: int, depth: int) -> str:
    """Name of a block of milesial's network in volseg's: inc, down1 .. downN, up1 .. upN."""
    if path == "up":
        return f"up.{number - 1}"
    return "bottom.0" if number == depth else f"down.{number}"


def _mateuszbuda_name(name: str, depth: int) -> str | None:
    """Rename a tensor of mateuszbuda/brain-segmentation-pytorch (`torch.hub`), whose levels count from 1."""
    if found := re.fullmatch(r"conv\.(\w+)", name):
        return f"head.{found[1]}"
    if found := re.fullmatch(r"upconv(\d+)\.(\w+)", name):
        return f"upconvolutions.{depth - int(found[1])}.{found[2]}"
    found = re.fullmatch(r"(encoder|bottleneck|decoder)(\d*)\.\D+\d*(conv|norm)(\d)\.(\w+)", name)
    if not found:
        return None
    path, level, kind, number, role = found.groups()
    block = {"encoder": f"down.{int(level or 0) - 1}", "decoder": f"up.{depth - int(level or 0)}"}.get(path, "bottom.0")
    return f"{block}.{3 * int(number) - 3 + (kind == 'norm')}.{role}"


_LAYOUTS = (
    ("milesial/Pytorch-UNet", "outc.conv.weight", _milesial_name, False),
    ("mateuszbuda/brain-segmentation-pytorch", "encoder1.enc1conv1.weight", _mateuszbuda_name, True),
)
"""Repository, a tensor that marks its layout, new names, whether upsampled features come first."""


def layout_arguments(layout: PublicLayout, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `unet`: those given, and those that the layout states.

    Raises:
        ConfigError: they contradict each other.
    """
    for key, value in layout.arguments.items():
        if key in given and given[key] != value:
            raise ConfigError(
                f"{layout.state.path} is the U-Net of {layout.name} with {key} = {value}, not {given[key]}; leave "
                f"out --argument {key}"
            )
    return {**layout.arguments, **given}


def sum_colours(state: StateDict) -> StateDict:
    """Sum the kernels of three colours into one for grey; the same function if all colours are the same grey."""
    names = [name for name, tensor in state.tensors.items() if tensor.ndim == 4 and tensor.shape[1] == 3]
    if len(names) != 1:
        return state
    summed = state.tensors[names[0]].sum(dim=1, keepdim=True)
    return replace(state, tensors={**state.tensors, names[0]: summed})


def put_skip_first(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Permute the input channels of a `unet` that was trained on upsampled features before the skip."""
    first = re.compile(r"up\.\d+\.0\.weight")
    return {
        name: torch.cat(tensor.chunk(2, dim=1)[::-1], dim=1) if first.fullmatch(name) else tensor
        for name, tensor in tensors.items()
    }


def fitting_options(state: StateDict) -> str:
    """The --network and --argument that a state dict fits; empty if none was found."""
    kernels = [tuple(tensor.shape) for tensor in state.tensors.values() if tensor.ndim > 2]
    spatial = [shape for shape in kernels if prod(shape[2:]) > 1 and all(side % 2 for side in shape[2:])]
    if not spatial or len(spatial[0]) != 4:
        return ""
    channels, width = min((shape[1], shape[0]) for shape in spatial)
    heads = [shape[0] for shape in kernels if prod(shape[2:]) == 1 and shape[1] == width]
    depth = int(log2(max(shape[0] for shape in spatial) / width))
    if len(heads) != 1 or depth < 1:
        return ""
    sizes = {"in_channels": channels, "out_channels": heads[0], "width": width, "depth": depth}
    for network, more in (("unet", {}), ("unet", {"batch_norm": True}), ("fusionnet", {})):
        with torch.device("meta"):
            candidate = build_network(network, {**sizes, **more})
        if fits(state, candidate):
            arguments = {**sizes, **more}
            options = [f"--argument {key}={str(value).lower()}" for key, value in arguments.items()]
            return f"--network {network} {' '.join(options)}"
    return ""
