"""Arrays in files of their own, memory-mapped: worker processes share them, and memory need not hold them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.errors import SourceError, VolsegError
from volseg.storage.cache import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

_UNUSED_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True, eq=False)
class ArrayFile:
    """An array in a .npy file. It is pickled as its path, so that another process maps the same file.

    Attributes:
        path: of the file.
        array: its voxels, read-only; they are read from the disk as they are touched.
    """

    path: Path
    array: NDArray[Any]

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return open_array, (self.path,)


def open_array(path: Path) -> ArrayFile:
    """Map a .npy file."""
    return ArrayFile(path, np.load(path, mmap_mode="r"))


def temporary_array(shape: tuple[int, ...], dtype: str, parts: Iterable[NDArray[Any]]) -> ArrayFile:
    """An array in a temporary file, which goes when the array does or this process ends, whichever is first.

    Args:
        shape: the array's.
        dtype: of its voxels.
        parts: its voxels in C order, in parts of any size.

    Raises:
        SourceError: the disk of temporary files does not take it.
    """
    folder, size = Path(tempfile.gettempdir()), prod(shape) * np.dtype(dtype).itemsize
    way_out = "make room there, or set TMPDIR to a larger disk"
    if _free(folder) < size:
        raise SourceError(
            f"{folder} has {_free(folder) / 1e9:.1f} GB free and {size / 1e9:.1f} GB are needed; {way_out}"
        )
    handle, name = tempfile.mkstemp(prefix="volseg-", suffix=".npy")
    os.close(handle)
    path = Path(name)
    try:
        _write(path, shape, dtype, parts)
        held = open_array(path)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, VolsegError):
            raise SourceError(f"cannot write into {folder}: {error.strerror}; {way_out}") from error
        raise
    weakref.finalize(held, _removed_by, os.getpid(), path)
    return held


def kept_array(
    kind: str, key: str, shape: tuple[int, ...], dtype: str, make: Callable[[], Iterable[NDArray[Any]]]
) -> ArrayFile:
    """The array kept under a key, or one freshly made and kept; where there is no room to keep it, a temporary one.

    What nobody used for a month makes room for what is new.

    Args:
        kind: what kind of array, a word.
        key: all that its voxels depend on.
        shape: the array's.
        dtype: of its voxels.
        make: gives its voxels in C order, in parts of any size.

    Raises:
        SourceError: neither the cache nor the disk of temporary files takes it.
    """
    partial = None
    try:
        folder = cache_folder() / kind
        path = folder / f"{blake2b(key.encode(), digest_size=16).hexdigest()}.npy"
        with suppress(OSError, ValueError):
            kept = open_array(path)
            if (kept.array.shape, kept.array.dtype) == (shape, np.dtype(dtype)):
                os.utime(path)
                return kept
        folder.mkdir(parents=True, exist_ok=True)
        _remove_unused(folder)
        if _free(folder) > prod(shape) * np.dtype(dtype).itemsize:
            partial = path.with_suffix(f".{os.getpid()}.partial")
            _write(partial, shape, dtype, make())
            partial.replace(path)
            return open_array(path)
    except VolsegError:
        raise
    except (OSError, RuntimeError):  # a full or read-only disk, a user without a home
        pass
    finally:
        if partial is not None:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
    return temporary_array(shape, dtype, make())


def _write(path: Path, shape: tuple[int, ...], dtype: str, parts: Iterable[NDArray[Any]]) -> None:
    """Write by ordinary writes: through a memory map, a full disk would end the process."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype).data)


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _remove_unused(folder: Path) -> None:
    for path in (*folder.glob("*.npy"), *folder.glob("*.partial")):
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - _UNUSED_SECONDS:
                path.unlink()


def _removed_by(owner: int, path: Path) -> None:
    if os.getpid() == owner:  # a forked child leaves its parent's file alone
        path.unlink(missing_ok=True)
