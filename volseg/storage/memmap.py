"""Memory-mapped arrays: worker processes share them, and they may be larger than memory."""

from __future__ import annotations

import fcntl
import os
import random
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
from volseg.storage.cache import cache_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

_UNUSED_SECONDS = 30 * 24 * 3600
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_REMEDY = "free some space there, or set TMPDIR to a larger disk"


@dataclass(frozen=True, eq=False)
class MemmapFile:
    """An array in a .npy file. It is pickled as its path, so that another process maps the same file.

    Attributes:
        path: path of the file.
        array: the read-only memory map.
    """

    path: Path
    array: NDArray[Any]

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return open_memmap, (self.path,)


def open_memmap(path: Path) -> MemmapFile:
    """Map a .npy file into memory."""
    return MemmapFile(path, np.load(path, mmap_mode="r"))


def temporary_memmap(shape: tuple[int, ...], dtype: str, parts: Iterable[NDArray[Any]]) -> MemmapFile:
    """Write an array to a temporary file, which is deleted with the array or at the end of this process.

    Args:
        shape: shape of the array.
        dtype: data type of the array.
        parts: the voxels in C order, in parts of any size.

    Raises:
        SourceError: the file cannot be written.
    """
    folder = Path(tempfile.gettempdir())
    _refuse_full_disk(folder, prod(shape) * np.dtype(dtype).itemsize)
    handle, name = tempfile.mkstemp(prefix="volseg-", suffix=".npy")
    os.close(handle)
    path = Path(name)
    try:
        _write(path, shape, dtype, parts)
        memmap = open_memmap(path)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, VolsegError):
            raise SourceError(f"cannot write into {folder}: {error.strerror}; {_REMEDY}") from error
        raise
    weakref.finalize(memmap, _remove_if_owner, os.getpid(), path)
    return memmap


def shared_memmap(
    key: str, shape: tuple[int, ...], dtype: str, compute: Callable[[], Iterable[NDArray[Any]]]
) -> MemmapFile:
    """Write an array to a temporary file once for all processes of this user on this host.

    Each process holds a shared lock on the file for as long as it uses it; the last one deletes it. A file that a
    killed process left is used by the next one.

    Args:
        key: everything that the voxels depend on.
        shape: shape of the array.
        dtype: data type of the array.
        compute: returns the voxels in C order, in parts of any size; called by one process, others wait for it.

    Raises:
        SourceError: the file cannot be written.
    """
    folder, size = Path(tempfile.gettempdir()), prod(shape) * np.dtype(dtype).itemsize
    digest = blake2b(f"{_boot_id()} {key}".encode(), digest_size=16).hexdigest()
    path = folder / f"volseg-{os.getuid()}-{digest}.npy"

    def create() -> None:
        _refuse_full_disk(folder, size)
        _write(path, shape, dtype, compute())

    def is_complete() -> bool:
        with suppress(OSError, ValueError, EOFError):  # a file that ends early cannot be mapped
            array = np.load(path, mmap_mode="r")
            return bool((array.shape, array.dtype) == (shape, np.dtype(dtype)))
        return False

    try:
        while (handle := _use(path, is_complete, create)) is None:
            time.sleep(random.uniform(0.01, 0.1))
        memmap = open_memmap(path)
    except OSError as error:
        if isinstance(error, VolsegError):
            raise
        raise SourceError(f"cannot write into {folder}: {error.strerror}; {_REMEDY}") from error
    weakref.finalize(memmap, _release, os.getpid(), handle, path)
    return memmap


def _boot_id() -> str:
    """A file that was written before a crash of the system may lack data; empty where the system has no such id."""
    with suppress(OSError):
        return _BOOT_ID.read_text()
    return ""


def _use(path: Path, is_complete: Callable[[], bool], create: Callable[[], None]) -> int | None:
    """Lock a file for use, after creating it if need be; None if another process was creating or deleting it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(handle).st_uid != os.getuid():
            raise SourceError(f"{path} belongs to another user; set TMPDIR to a folder of your own")
        fcntl.flock(handle, fcntl.LOCK_SH)
        if _is_file_of(handle, path) and is_complete():
            return handle
        if _is_locked(handle, fcntl.LOCK_EX) and _is_file_of(handle, path):
            _create_once(path, is_complete, create)
            fcntl.flock(handle, fcntl.LOCK_SH)
            if _is_file_of(handle, path):  # changing the lock may have let another process delete it
                return handle
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _create_once(path: Path, is_complete: Callable[[], bool], create: Callable[[], None]) -> None:
    """Write a locked file, unless another process did before the lock was got; none is left if it fails."""
    try:
        if not is_complete():
            create()
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _is_file_of(handle: int, path: Path) -> bool:
    """Whether a path is still that of an open file."""
    with suppress(FileNotFoundError):
        return os.fstat(handle).st_ino == path.stat().st_ino
    return False


def _is_locked(handle: int, lock: int) -> bool:
    """Lock a file if no other process holds it."""
    try:
        fcntl.flock(handle, lock | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _release(owner: int, handle: int, path: Path) -> None:
    """Delete a shared file unless another process uses it."""
    if os.getpid() != owner:  # a forked child shares its parent's lock
        return
    if _is_locked(handle, fcntl.LOCK_EX):
        path.unlink(missing_ok=True)
    os.close(handle)


def cached_memmap(
    kind: str, key: str, shape: tuple[int, ...], dtype: str, compute: Callable[[], Iterable[NDArray[Any]]]
) -> MemmapFile:
    """Return the cached array of a key, or compute and cache it; a temporary one if the cache has no space.

    Files that were not used for a month are deleted first.

    Args:
        kind: kind of array, the name of a subfolder.
        key: everything that the voxels depend on.
        shape: shape of the array.
        dtype: data type of the array.
        compute: returns the voxels in C order, in parts of any size.

    Raises:
        SourceError: neither the cache nor a temporary file can be written.
    """
    partial = None
    try:
        path = cache_path(kind, key, ".npy")
        with suppress(OSError, ValueError):
            memmap = open_memmap(path)
            if (memmap.array.shape, memmap.array.dtype) == (shape, np.dtype(dtype)):
                os.utime(path)
                return memmap
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_unused(path.parent)
        if _free_bytes(path.parent) > prod(shape) * np.dtype(dtype).itemsize:
            partial = path.with_suffix(f".{os.getpid()}.partial")
            _write(partial, shape, dtype, compute())
            partial.replace(path)
            return open_memmap(path)
    except VolsegError:
        raise
    except (OSError, RuntimeError):  # a full or read-only disk, no home folder
        pass
    finally:
        if partial is not None:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
    return temporary_memmap(shape, dtype, compute())


def _refuse_full_disk(folder: Path, size: int) -> None:
    if _free_bytes(folder) < size:
        raise SourceError(
            f"{folder} has {_free_bytes(folder) / 1e9:.1f} GB free and {size / 1e9:.1f} GB is needed; {_REMEDY}"
        )


def _write(path: Path, shape: tuple[int, ...], dtype: str, parts: Iterable[NDArray[Any]]) -> None:
    """Write without a memory map, through which a full disk would kill the process."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype).data)


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _remove_unused(folder: Path) -> None:
    for path in (*folder.glob("*.npy"), *folder.glob("*.partial")):
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - _UNUSED_SECONDS:
                path.unlink()


def _remove_if_owner(owner: int, path: Path) -> None:
    if os.getpid() == owner:  # not in a forked child
        path.unlink(missing_ok=True)
