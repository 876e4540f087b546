"""Keep freed memory in the process so that later passes reuse it.

By default glibc returns large blocks to the system as soon as they are freed, and the system clears every page before
it hands it out again. A FusionNet of width 16 takes a quarter less CPU time per pass if the heap is retained, with no
higher peak (benchmarks/malloc.py).

`retain_heap` changes malloc for the whole process, so predictors do not call it. Workers do, and trainings on a
CPU; a serial run, which is in the user's process, restores malloc at its end.

The heap of every thread but the first ends at 64 MiB, and larger blocks always come from the system. With
MALLOC_ARENA_MAX=1 in the environment when the process starts, all threads share one heap without that limit.

The first pass over tiles of a shape leaves small blocks that stay, such as oneDNN's kernel cache. Between activations
they would fragment the heap: its peak is a half higher. So a first pass maps its activations apart:

    first pass     [ libraries | kernels ]      [ map ]  [ map ]      from the system, and back
    later passes   [ libraries | kernels | map | map | ... ]          in the heap, reused
"""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
"""Options of mallopt(3), as glibc numbers them."""
_RETAIN = {
    _TRIM_THRESHOLD: -1,  # never shrink a heap
    _TOP_PAD: 64 << 20,  # the maximum heap of a thread, so that even an empty one is kept
    _MMAP_MAX: 0,  # allocate nothing outside of heaps
}
_MMAP_LARGE = {_TOP_PAD: 128 << 10, _MMAP_THRESHOLD: 128 << 10, _MMAP_MAX: 65536}
_DEFAULTS = _MMAP_LARGE | {_TRIM_THRESHOLD: 128 << 10}

_options = _DEFAULTS
"""Options outside of `mmap_large_blocks`."""


def retain_heap() -> bool:
    """Keep freed memory in the process; False if the C library is not glibc, which changes nothing then."""
    global _options
    _options = _RETAIN
    return _mallopt(_options)


def release_heap() -> None:
    """Undo `retain_heap`, and return free memory to the system."""
    global _options
    _options = _DEFAULTS
    _mallopt(_options)
    trim()


def trim() -> None:
    """Collect garbage and return free memory to the system, once."""
    gc.collect()  # graphs of networks refer to themselves, and to hundreds of MiB of weights
    _malloc_trim()


@contextmanager
def mmap_large_blocks() -> Iterator[None]:
    """Allocate large blocks outside of a heap that is retained, which is trimmed first."""
    if _options is not _RETAIN:
        yield
        return
    _malloc_trim()
    _mallopt(_MMAP_LARGE)
    try:
        yield
    finally:
        _mallopt(_options)  # another thread may have changed `_options`


def _malloc_trim() -> None:
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _mallopt(options: dict[int, int]) -> bool:
    """Set options of malloc; whether all were accepted."""
    libc = _glibc()
    return libc is not None and all(libc.mallopt(option, value) for option, value in options.items())


def _glibc() -> ctypes.CDLL | None:
    """The C library if it is glibc; others lack these options."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "gnu_get_libc_version") else None
