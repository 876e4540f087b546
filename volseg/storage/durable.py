"""Writes that outlast a power failure: synced to the disk before anything refers to them."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from volseg.storage.object_path import ObjectPath

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.storage.object_path import TargetPath

_NOT_SYNCABLE = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""Of file systems that do not sync folders, because they write their entries at once."""


def write_synced(path: Path, content: bytes | bytearray | memoryview) -> int:
    """Create a file and sync it; returns its size in bytes. The folder is not synced.

    Only the process that wrote a file can sync it on a network file system: others do not have its pages.
    """
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def write_whole(path: TargetPath, content: bytes) -> None:
    """Write a file that appears whole and is on the disk, or in the store, before this returns; it replaces another."""
    if isinstance(path, ObjectPath):
        path.write_bytes(content)
        return
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    write_synced(partial, content)
    partial.replace(path)


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder; one that is gone has none."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SYNCABLE:
            raise
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Sync the folders and the metadata of a Zarr, whose shards were synced when they were written."""
    for name, _, files in os.walk(root, topdown=False):
        folder = root / name
        for file in files:
            if file.endswith(".json"):
                sync_file(folder / file)
        sync_folder(folder)


def sync_file(path: Path) -> None:
    """Sync a file that this process wrote; its folder is not synced."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
