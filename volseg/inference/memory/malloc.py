"""Pages that a process keeps: a map of one forward pass is made where one of the pass before was.

The C library gives large pieces of memory back to the system as soon as they are free, and the system clears every
page before it hands it out again. Of a forward pass of a narrow network that is a third of the time, and more in a
worker of Dask, which asks for pages to be given back sooner still.

The heap of any thread but the first ends at 64 MiB; larger maps stay outside of it, and cannot be kept. Where a process
has one heap for all its threads (MALLOC_ARENA_MAX=1 when it starts, as in workers that volseg starts) they can.

The first pass over tiles of a shape leaves small pieces behind for good, such as what oneDNN remembers of its kernels.
Made among the maps they would stay where maps were, and those of later passes, of many sizes, would have to find room
around them: a heap of up to three times what lives at once. So the maps of a first pass are made apart.

    first pass    [ libraries | kernels ]      [ map ]  [ map ]      from the system, and back
    from then on  [ libraries | kernels | map | map | ... ]          in the heap, again and again
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
_KEEPING = {
    _TRIM_THRESHOLD: -1,  # never shrink a heap
    _TOP_PAD: 64 << 20,  # as much as a thread's heap may have, so that not even an empty one is given back
    _MMAP_MAX: 0,  # take nothing from outside of heaps
}
_APART = {_TOP_PAD: 128 << 10, _MMAP_THRESHOLD: 128 << 10, _MMAP_MAX: 65536}
_USUAL = _APART | {_TRIM_THRESHOLD: 128 << 10}

_keeps = False
"""Whether this process keeps pages now."""


def retain_heap() -> bool:
    """From here on, keep what is freed for what comes; False where the C library cannot be asked to."""
    global _keeps
    _keeps = True
    return _told(_options())


def release_heap() -> None:
    """Return what is free and keep no more, in a process that goes on to do other things."""
    global _keeps
    _keeps = False
    _told(_options())
    trim()


def trim() -> None:
    """Return what is free, and go on keeping what will be."""
    gc.collect()  # graphs of networks hold themselves, and hundreds of MiB of weights
    _return_free()


@contextmanager
def mmap_large_blocks() -> Iterator[None]:
    """Where pages are kept: return the free end of the heap, and for now make large pieces outside of it."""
    if not _keeps:
        yield
        return
    _return_free()
    _told(_APART)
    try:
        yield
    finally:
        _told(_options())


def _options() -> dict[int, int]:
    """What the C library goes by; another thread may have asked for something else meanwhile."""
    return _KEEPING if _keeps else _USUAL


def _return_free() -> None:
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _told(options: dict[int, int]) -> bool:
    """Whether the C library took these options."""
    libc = _glibc()
    return libc is not None and all(libc.mallopt(option, value) for option, value in options.items())


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is the one whose options these are."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "gnu_get_libc_version") else None
