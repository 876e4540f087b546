"""Widens a trained network without changing its function, for comparisons at a width that was not trained.

Each channel is repeated, and the weights that read it are divided by the number of repeats: the function is the same,
the work is that of the wide network (Net2Net; Chen, Goodfellow, Shlens, arXiv 1511.05641). Random weights would do for
times, but the halo that a network needs and its rounding error depend on trained weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from volseg.models.model import build_card, load_model_file, save_model
from volseg.models.networks.layers import CONVOLUTIONS, DECONVOLUTIONS
from volseg.models.registry import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor


def widen(narrow: nn.Module, wide: nn.Module) -> None:
    """Copy a network's weights into a wider network with the same layers, preserving the function.

    Args:
        narrow: the network to copy from.
        wide: the network to write to; all its layers but the first and the last are wider by one factor.
    """
    values = narrow.state_dict()
    with torch.no_grad():
        for name, module in wide.named_modules():
            input_axis = 0 if isinstance(module, DECONVOLUTIONS) else 1 if isinstance(module, CONVOLUTIONS) else None
            for key, tensor in module.named_parameters(prefix=name, recurse=False):
                tensor.copy_(_repeat(values[key], tensor.shape, input_axis if key.endswith("weight") else None))
            for key, tensor in module.named_buffers(prefix=name, recurse=False):
                tensor.copy_(_repeat(values[key], tensor.shape, None))


def _repeat(values: Tensor, shape: Sequence[int], input_axis: int | None) -> Tensor:
    """Repeat values along each axis to a shape, and divide by the repeats of the input axis."""
    for axis, (length, target) in enumerate(zip(values.shape, shape, strict=True)):
        repeats = target // length
        values = values.repeat_interleave(repeats, dim=axis) / (repeats if axis == input_axis else 1)
    return values


def widen_model(path: Path, model: Path, width: int) -> Path:
    """Write a model file whose network is wider and has the same function.

    Args:
        path: file to write.
        model: model file of a network with an argument `width`.
        width: of the new network, a multiple of the model's.
    """
    narrow = load_model_file(model)
    card = narrow.card
    arguments = {**card.arguments, "width": width}
    network = NETWORKS[card.network](**arguments)
    widen(narrow.network, network)
    wide_card = build_card(
        network,
        name=path.stem,
        kind=card.network,
        arguments=arguments,
        normalization=card.normalization,
        voxel_nm=card.voxel_nm,
    )
    save_model(path, network, wide_card)
    return path
