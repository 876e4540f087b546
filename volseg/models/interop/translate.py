"""Networks with the weights of other people's state dicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volseg.errors import ModelError
from volseg.models.interop.layouts import (
    fitting_options,
    layout_arguments,
    public_layout,
    put_skip_first,
    sum_colours,
)
from volseg.models.interop.match import MismatchError, match_tensors
from volseg.models.interop.state_dict import read_state_dict
from volseg.models.registry import build_network

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn


def translate(
    weights: Path, kind: str, given: Mapping[str, Any], upsampled_first: bool | None
) -> tuple[nn.Module, dict[str, Any], list[str]]:
    """Build a network with the weights of a file.

    Args:
        weights: a .pt, .pth or .safetensors file with a state dict.
        kind: name of the network in the registry.
        given: arguments of the network's class.
        upsampled_first: whether a U-Net concatenates upsampled features before the skip; None if not stated.

    Returns:
        The network, its arguments, and what was assumed of the weights, a line each.

    Raises:
        ModelError: the file cannot be read, or does not match.
        ConfigError: arguments that contradict a known layout.
    """
    state = read_state_dict(weights)
    notes = [f"left out, no weights: {', '.join(state.ignored)}"] if state.ignored else []
    if given.get("in_channels") == 1 and (summed := sum_colours(state)) is not state:
        state = summed
        notes.append("the kernels of three input channels are summed into one, for grey instead of three colours")
    layout = public_layout(state) if kind == "unet" else None
    arguments = dict(given)
    if layout is not None:
        state, arguments = layout.state, layout_arguments(layout, given)
        upsampled_first = layout.upsampled_first if upsampled_first is None else upsampled_first
        stated = ", ".join(f"{key} = {value}" for key, value in arguments.items())
        notes.append(f"a U-Net of {layout.name}: {stated}")
        if arguments["in_channels"] > 1:
            notes.append(
                f"{arguments['in_channels']} input channels are neighbouring sections; for the three colours of grey "
                "images, use --argument in_channels=1"
            )
    network = build_network(kind, arguments)
    try:
        matched = match_tensors(state, network)
    except MismatchError as error:
        options = fitting_options(state)
        way_out = (
            f"it fits {options}" if options else "choose another --network, or give its size with --argument KEY=VALUE"
        )
        raise ModelError(f"{error}; {way_out}") from error
    if matched.renamed:
        how = "layer by layer, by shapes and neighbours" if matched.by_layer else "in order, by shape"
        notes.append(f"names differ; {matched.renamed} tensors matched {how}")
    if matched.zero_biases:
        notes.append(f"{matched.zero_biases} convolutions before a norm have no bias, which is the same as 0")
    if upsampled_first:
        notes.append("upsampled features come before the skip; the kernels that read them are permuted")
    network.load_state_dict(put_skip_first(matched.tensors) if upsampled_first else matched.tensors)
    return network, arguments, notes
