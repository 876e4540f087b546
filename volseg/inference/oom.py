"""What is tried when a device runs out of memory: half the batch down to one tile, then tiles of half the side.

batch 8 -> 4 -> 2 -> 1 -> core halved along y and x, on the stride -> .. -> refused, in one line
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import torch

from volseg.blocks import Box, ceil_to
from volseg.errors import MemoryPlanError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volseg.blocks import Tiling, Zyx

_ON_CPU = "can't allocate memory"
"""What torch's allocator says on a CPU, in an error of no type of its own."""


def out_of_memory(error: Exception) -> bool:
    """Whether a forward pass failed for want of memory; NumPy and C++ say so with a MemoryError.

    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    True
    >>> out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _ON_CPU in str(error)


def smaller(tiling: Tiling, batch: int, device: str) -> tuple[Tiling, int]:
    """The next tiling and batch to try: half the batch, or else half the core along y and x.

    Args:
        tiling: that did not fit.
        batch: tiles a pass that did not fit.
        device: which ran out of memory.

    Raises:
        MemoryPlanError: one tile cannot be halved any more.
    """
    if batch > 1:
        return tiling, batch // 2
    (z, y, x), (_, sy, sx) = tiling.core, tiling.footprint.stride
    core = (z, ceil_to(-(-y // 2), sy), ceil_to(-(-x // 2), sx))
    half = replace(tiling, core=core)
    # A network that takes no input as small would see beyond what a block reads.
    least = half.input_shape != tuple(c + 2 * h for c, h in zip(core, half.halo, strict=True))
    if core == tiling.core or least:
        raise MemoryPlanError(
            f"one tile of {_text(tiling.core)}, {_text(tiling.input_shape)} with its halo, does not fit the memory "
            f"left on {device}; give a smaller --tile or --block, or fewer --workers"
        )
    return half, 1


def parts(core: Box, shape: Zyx) -> Iterator[Box]:
    """Boxes of one shape that cover a core; where they do not divide it, the last of an axis overlaps the one before.

    >>> [str(part) for part in parts(Box((0, 0, 32), (1, 16, 80)), (1, 16, 32))]
    ['0:1,0:16,32:64', '0:1,0:16,48:80']
    """
    axes = (
        [min(a + i * n, b - n) for i in range(-(-(b - a) // n))]
        for a, b, n in zip(core.start, core.stop, shape, strict=True)
    )
    for z, y, x in product(*axes):
        yield Box((z, y, x), (z + shape[0], y + shape[1], x + shape[2]))


def oom_warning(tiling: Tiling, batch: int, device: str) -> str:
    """What the user is told when less is tried from here on, in a line."""
    return (
        f"{device} ran out of memory: from here on this process computes tiles of {_text(tiling.core)}, {batch} at a "
        "time; a smaller --tile or --block, or fewer --workers, would spare that"
    )


def _text(zyx: Zyx) -> str:
    return ",".join(map(str, zyx))
