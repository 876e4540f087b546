"""A wide network that computes what a trained narrow one does, for comparisons at a width that was not trained.

Each channel stands there several times over, and what reads them divides by as many: the function is the same, the
work is that of the wide network (Net2Net; Chen, Goodfellow, Shlens, arXiv 1511.05641). Random weights would do for
timing alone; but what halo a network needs, and what rounding costs it, is a matter of trained ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from volseg.models.model import card_for, load_model_file, save_model
from volseg.models.networks.layers import CONVOLUTIONS, DECONVOLUTIONS
from volseg.models.registry import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor


def widen(narrow: nn.Module, wide: nn.Module) -> None:
    """Put a network's function into another of the same layers, whose maps have some times as many channels.

    Args:
        narrow: whose weights are taken.
        wide: into which they are put; all its layers but the first and the last are wider by one factor.
    """
    values = narrow.state_dict()
    with torch.no_grad():
        for name, module in wide.named_modules():
            inner = 0 if isinstance(module, DECONVOLUTIONS) else 1 if isinstance(module, CONVOLUTIONS) else None
            for key, tensor in module.named_parameters(prefix=name, recurse=False):
                tensor.copy_(_repeated(values[key], tensor.shape, inner if key.endswith("weight") else None))
            for key, tensor in module.named_buffers(prefix=name, recurse=False):
                tensor.copy_(_repeated(values[key], tensor.shape, None))


def _repeated(values: Tensor, shape: Sequence[int], reads: int | None) -> Tensor:
    """Values repeated along each axis until they have a shape, and divided by the repeats of the axis that reads."""
    for axis, (length, wanted) in enumerate(zip(values.shape, shape, strict=True)):
        times = wanted // length
        values = values.repeat_interleave(times, dim=axis) / (times if axis == reads else 1)
    return values


def widened(path: Path, model: Path, width: int) -> Path:
    """Write the model file of a wider network that computes what a given model's does.

    Args:
        path: to be written.
        model: a model file whose network takes a width.
        width: of the new network, a multiple of the model's.
    """
    taken = load_model_file(model)
    card = taken.card
    arguments = {**card.arguments, "width": width}
    network = NETWORKS[card.network](**arguments)
    widen(taken.network, network)
    made = card_for(
        network,
        name=path.stem,
        kind=card.network,
        arguments=arguments,
        normalization=card.normalization,
        voxel_nm=card.voxel_nm,
    )
    save_model(path, network, made)
    return path
