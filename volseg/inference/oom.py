"""Smaller forward passes after a device ran out of memory.

batch 8 -> 4 -> 2 -> 1 -> core halved along y and x, on the stride -> .. -> refused
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import torch

from volseg.blocks import Box, ceil_to, format_zyx
from volseg.errors import MemoryPlanError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volseg.blocks import Tiling, Zyx

_CPU_MESSAGE = "can't allocate memory"
"""Part of the message of torch's CPU allocator, which raises a plain RuntimeError."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory ran out; NumPy and C++ raise MemoryError.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    True
    >>> is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _CPU_MESSAGE in str(error)


def reduce_tiling(tiling: Tiling, batch: int, device: str) -> tuple[Tiling, int]:
    """Halve the batch or, if it is one tile, the core along y and x.

    Args:
        tiling: that did not fit.
        batch: tiles per pass that did not fit.
        device: that ran out of memory.

    Raises:
        MemoryPlanError: one tile cannot be halved further.
    """
    if batch > 1:
        return tiling, batch // 2
    (z, y, x), (_, sy, sx) = tiling.core, tiling.footprint.stride
    core = (z, ceil_to(-(-y // 2), sy), ceil_to(-(-x // 2), sx))
    half = replace(tiling, core=core)
    # A network with a minimum input size would need more context than the block has read.
    too_small = half.input_shape != tuple(c + 2 * h for c, h in zip(core, half.halo, strict=True))
    if core == tiling.core or too_small:
        raise MemoryPlanError(
            f"one tile of {format_zyx(tiling.core)}, {format_zyx(tiling.input_shape)} with its halo, does not fit the "
            f"memory left on {device}; give a smaller --tile or --block, or fewer --workers"
        )
    return half, 1


def split_core(core: Box, shape: Zyx) -> Iterator[Box]:
    """Cover a core with boxes of one shape; the last along an axis may overlap the one before.

    >>> [str(part) for part in split_core(Box((0, 0, 32), (1, 16, 80)), (1, 16, 32))]
    ['0:1,0:16,32:64', '0:1,0:16,48:80']
    """
    axes = (
        [min(a + i * n, b - n) for i in range(-(-(b - a) // n))]
        for a, b, n in zip(core.start, core.stop, shape, strict=True)
    )
    for z, y, x in product(*axes):
        yield Box((z, y, x), (z + shape[0], y + shape[1], x + shape[2]))


def oom_warning(tiling: Tiling, batch: int, device: str) -> str:
    """Warning after an out-of-memory fallback."""
    return (
        f"{device} ran out of memory: this process now computes tiles of {format_zyx(tiling.core)} in batches of "
        f"{batch}; a smaller --tile or --block, or fewer --workers, would avoid that"
    )
