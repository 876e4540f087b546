"""Weights in fewer bits, rounded so that each kernel still weighs what it did.

Rounding each weight to the nearest is random weight by weight, but the same for every voxel: a kernel whose sum has
moved shifts a whole map. Neighbouring voxels are alike, so an error that the next weight makes up for is hardly seen.
So errors are carried along a path through the kernel, as error diffusion carries them through an image (Floyd,
Steinberg, Proc. SID 17, 1976).

    in quarters    nearest          carried
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
    """Give a float32 network's convolutions weights that `dtype` can hold, before it is brought into that type.

    Transposed convolutions are rounded as ever: where kernel and stride are the same, no two of their weights meet in
    a voxel. Convolutions remember their `exact_bias`, float32, for an operator that can add it before it rounds.
    """
    for module in network.modules():
        if isinstance(module, CONVOLUTIONS):
            module.weight = nn.Parameter(error_diffusion(module.weight.detach(), dtype), requires_grad=False)
            if module.bias is not None:
                module.exact_bias = module.bias.detach()  # no parameter, which would be cast with the others


def error_diffusion(weights: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights (out, in, [z,] y, x) that `dtype` can hold, in float32, each kernel's errors carried along it.

    >>> kernel = torch.tensor([1.003, 1.003, 1.003]).view(1, 1, 1, 3)
    >>> error_diffusion(kernel, torch.bfloat16).flatten().tolist()
    [1.0, 1.0078125, 1.0]
    """
    made = torch.empty_like(weights)
    error = weights.new_zeros(weights.shape[:2])
    for place in serpentine(weights.shape[2:]):
        at: tuple[Any, ...] = (slice(None), slice(None), *place)
        wanted = weights[at] + error
        made[at] = wanted.to(dtype)
        error = wanted - made[at]
    return made


def serpentine(sides: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every place of a box once, each beside the one before.

    >>> list(serpentine((2, 2)))
    [(0, 0), (0, 1), (1, 1), (1, 0)]
    """
    if not sides:
        yield ()
        return
    inner = list(serpentine(sides[1:]))
    for at in range(sides[0]):
        yield from ((at, *place) for place in inner[:: -1 if at % 2 else 1])
