"""Bytes of the shards of each block, as marked: in memory, or of many blocks in a file."""

from __future__ import annotations

import mmap
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_SHARDS = -1
"""Size of a block that has no mark, or whose mark says that no shard was written."""
UNKNOWN_SIZE = 0
"""Size of a block whose mark does not say it."""
_IN_MEMORY = 1 << 23
"""Blocks of a table in memory."""


def size_table(count: int) -> NDArray[np.int64]:
    """A table of the bytes of each block's shards, without any; of many blocks it is a file that ends with it."""
    if count <= _IN_MEMORY:
        return np.full(count, NO_SHARDS, np.int64)
    with tempfile.TemporaryFile(prefix="volseg-sizes-") as file:
        table: NDArray[Any] = np.memmap(file, np.int64, "w+", shape=(count,))
    for start in range(0, count, _IN_MEMORY):
        table[start : start + _IN_MEMORY] = NO_SHARDS
        release_pages(table)
    return table


def release_pages(table: NDArray[Any]) -> None:
    """Let the system take the memory of a table of `size_table`; what it holds stays."""
    mapped: Any = table.base
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
