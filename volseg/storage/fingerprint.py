"""Fingerprint of a volume, independent of its path; and the modification marks of its files."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import obstore

from volseg.blocks import Box
from volseg.errors import SourceError
from volseg.storage.paths import local_input
from volseg.storage.record_entries import SourceMarks
from volseg.storage.resampled import stored_volume
from volseg.storage.section_folder import is_pattern, section_files
from volseg.storage.zarr_store import may_list, open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.storage.readers import Readable

_THREADS = 16
_COUNTS = (4, 2, 2)
_WINDOW = (1, 64, 64)


def volume_fingerprint(volume: Readable) -> str:
    """Return a digest of shape, data type and the voxels of sixteen windows spread over the volume.

    It is fast for any size and independent of path and storage. Edits outside the windows do not change it. That of a
    resampled volume is of the stored one.
    """
    volume = stored_volume(volume)
    digest = blake2b(f"{volume.shape} {volume.dtype}".encode(), digest_size=16)
    starts = [
        sorted({(2 * k + 1) * n // (2 * count) for k in range(count)})
        for n, count in zip(volume.shape, _COUNTS, strict=True)
    ]
    for z, y, x in product(*starts):
        window = Box((z, y, x), (z + _WINDOW[0], y + _WINDOW[1], x + _WINDOW[2]))
        voxels = volume.read(window.intersection(Box.of_shape(volume.shape)))
        digest.update(np.ascontiguousarray(voxels).tobytes())
    return digest.hexdigest()


def source_marks(location: str) -> SourceMarks | None:
    """Number, size and time of the files of a source; None if its store does not list them.

    Args:
        location: a path, which may end in `:DATASET`, or a URL.

    Raises:
        SourceError: the files cannot be listed.
    """
    if "://" in location:
        return _remote_marks(location)
    path = Path(location)
    try:
        if is_pattern(path):
            return _file_marks(section_files(path))
        path = local_input(location) or path
        while not path.exists() and path != path.parent:  # inside a zip file
            path = path.parent
        return _local_marks(path)
    except OSError as error:
        raise SourceError(f"the files of {location} cannot be listed: {error}") from error


def _file_marks(files: Sequence[Path]) -> SourceMarks:
    statuses = [file.stat() for file in files]
    newest = max((status.st_mtime_ns for status in statuses), default=0)
    return SourceMarks(files=len(files), bytes=sum(status.st_size for status in statuses), newest=str(newest))


def _local_marks(path: Path) -> SourceMarks:
    """Marks of a file, or of all files in a folder, listed in threads."""
    if path.is_file():
        return _file_marks([path])
    files = size = newest = 0
    with ThreadPoolExecutor(_THREADS) as threads:
        folders = [str(path)]
        while folders:
            inside: list[str] = []
            for count, total, latest, nested in threads.map(_scan, folders):
                files, size, newest = files + count, size + total, max(newest, latest)
                inside += nested
            folders = inside
    return SourceMarks(files=files, bytes=size, newest=str(newest))


def _scan(folder: str) -> tuple[int, int, int, list[str]]:
    """Files, bytes, newest time and folders in a folder."""
    files = size = newest = 0
    nested: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                if entry.name != ".volseg":  # the journal of a run, beside the voxels
                    nested.append(entry.path)
                continue
            status = entry.stat()
            files, size, newest = files + 1, size + status.st_size, max(newest, status.st_mtime_ns)
    return files, size, newest, nested


def _remote_marks(location: str) -> SourceMarks | None:
    """Marks of all objects below a URL, whose tags or times are digested; None if it cannot be listed, as over http."""
    store, digest = open_store(location), blake2b(digest_size=16)
    files = size = 0
    if not may_list(store):
        return None
    try:
        for batch in obstore.list(store.store):  # type: ignore[union-attr]  # a URL gives an object store
            for item in sorted(batch, key=lambda item: item["path"]):
                files, size = files + 1, size + item["size"]
                digest.update(f"{item['path']} {item['size']} {item['e_tag'] or item['last_modified']}\n".encode())
    except Exception:  # each store raises errors of its own; one that does not list is no fault
        return None
    return SourceMarks(files=files, bytes=size, newest=digest.hexdigest()) if files else None
