"""The network made ready for one device, once a worker."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from volseg.models.graph import dimensions
from volseg.models.layers import CONVOLUTIONS, DECONVOLUTIONS, NORMS

if TYPE_CHECKING:
    from volseg.inference.facts import Device, Precision

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def prepared(network: nn.Module, device: Device, precision: Precision) -> nn.Module:
    """A copy of the network for inference: eval mode, batch norm folded where it can be, channels last, on the device.

    A batch norm that follows a convolution directly is folded into it, in float32; one behind a ReLU stays.
    """
    ready = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    fold_batch_norms(ready)
    placed: nn.Module = ready.to(device=device, dtype=DTYPES[precision])
    layout = torch.channels_last if dimensions(network) == 2 else torch.channels_last_3d
    return placed.to(memory_format=layout)  # type: ignore[call-overload,no-any-return]  # torch's stub lacks it


def fold_batch_norms(network: nn.Module) -> None:
    """Fold every batch norm that directly follows a convolution into it, in place."""
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for at in range(len(module) - 1):
            convolution, norm = module[at], module[at + 1]
            if isinstance(convolution, CONVOLUTIONS + DECONVOLUTIONS) and isinstance(norm, NORMS):
                transposed = isinstance(convolution, DECONVOLUTIONS)
                module[at] = fuse_conv_bn_eval(convolution, norm, transpose=transposed)
                module[at + 1] = nn.Identity()
