"""Rounds weights to fewer bits by error diffusion, which preserves the sum of each kernel.

Rounding each weight to nearest is random per weight but the same for every voxel: a changed sum of a kernel shifts a
whole feature map. Neighbouring voxels are alike, so an error that the next weight compensates has little effect.
Errors are therefore carried along a path through the kernel, as in images (Floyd, Steinberg, Proc. SID 17, 1976).

    exact          nearest          error diffusion     (quarters)
    0.3 0.3 0.3    0.25 0.25 0.25   0.25 0.25 0.5
    sum 0.9        0.75             1.0
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from volseg.models.networks.layers import CONVOLUTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def round_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Round the convolutions of a float32 network to values of `dtype`, before it is converted to that type.

    Transposed convolutions are left to plain rounding: if kernel and stride are equal, no two of their weights meet in
    a voxel. Convolutions get an `exact_bias` in float32, for operators that add the bias before they round.
    """
    for module in network.modules():
        if isinstance(module, CONVOLUTIONS):
            module.weight = nn.Parameter(error_diffusion(module.weight.detach(), dtype), requires_grad=False)
            if module.bias is not None:
                module.exact_bias = module.bias.detach()  # not a parameter, which would be converted too


def error_diffusion(weights: Tensor, dtype: torch.dtype) -> Tensor:
    """Round weights (out, in, [z,] y, x) to values of `dtype`, in float32, carrying errors along each kernel.

    >>> kernel = torch.tensor([1.003, 1.003, 1.003]).view(1, 1, 1, 3)
    >>> error_diffusion(kernel, torch.bfloat16).flatten().tolist()
    [1.0, 1.0078125, 1.0]
    """
    result = torch.empty_like(weights)
    error = weights.new_zeros(weights.shape[:2])
    for position in serpentine(weights.shape[2:]):
        index: tuple[Any, ...] = (slice(None), slice(None), *position)
        exact = weights[index] + error
        result[index] = exact.to(dtype)
        error = exact - result[index]
    return result


def serpentine(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All positions of a box, each adjacent to the one before.

    >>> list(serpentine((2, 2)))
    [(0, 0), (0, 1), (1, 1), (1, 0)]
    """
    if not shape:
        yield ()
        return
    inner = list(serpentine(shape[1:]))
    for at in range(shape[0]):
        yield from ((at, *position) for position in inner[:: -1 if at % 2 else 1])
