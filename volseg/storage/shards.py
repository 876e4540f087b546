"""Shards of an array: encoded into files beside it, and named when they are on the disk."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import zarr
from zarr.core.chunk_key_encodings import V2ChunkKeyEncoding
from zarr.storage import LocalStore, MemoryStore, StorePath

from volseg.storage.durable import sync_file, write_synced

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OPEN_FOLDERS = Path("/proc/self/fd")
_KEY = V2ChunkKeyEncoding(separator=".")
NATIVE = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1}
"""One thread for each shard, because with several the order of its chunks, and so its bytes, would vary."""


class ShardFiles:
    """Encodes shards into files of a folder, in any number of threads; repeating it gives the same bytes.

    zarrs encodes, for half of the CPU time that zarr needs, and lets other threads run. It creates missing folders, so
    it gets the open folder instead of its path: a target that is deleted meanwhile is not made again. Where open
    folders have no path (other systems than Linux) zarr encodes.
    """

    def __init__(self, array: zarr.Array[Any], folder: Path) -> None:
        """Open the folder, which is made if the one above it is there.

        Args:
            array: whose metadata count.
            folder: of the files.
        """
        self._array, self.folder = array, folder
        folder.mkdir(exist_ok=True)
        self._handle = os.open(folder, os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)
        self._lock = threading.Lock()
        self._idle: dict[tuple[int, ...], list[tuple[Path, zarr.Array[Any]]]] = {}

    @property
    def is_open(self) -> bool:
        """Whether the folder is still there under its path."""
        with suppress(FileNotFoundError):
            return os.fstat(self._handle).st_ino == self.folder.stat().st_ino
        return False

    def write(self, voxels: NDArray[Any]) -> Path:
        """Encode one shard into a new file, and sync it.

        Args:
            voxels: of the shard, all axes of the array; fewer than a shard has at the end of the volume.

        Raises:
            OSError: it cannot be written.
        """
        path = self.folder / uuid4().hex
        # zarrs stores no shard of zeros, which would look lost.
        if not _OPEN_FOLDERS.is_dir() or self._array.metadata.zarr_format == 2 or not voxels.any():
            write_synced(path, encode_in_memory(self._array, voxels))
            return path
        encoder = self._encoder(voxels.shape)
        try:
            encoder[1][...] = voxels
            sync_file(encoder[0])
            encoder[0].replace(path)
        except RuntimeError as error:  # zarrs has no other
            raise OSError(str(error)) from error
        with self._lock:
            self._idle[voxels.shape].append(encoder)
        return path

    def _encoder(self, shape: tuple[int, ...]) -> tuple[Path, zarr.Array[Any]]:
        """An array of one shard that no other thread uses, and its file."""
        with self._lock:
            idle = self._idle.setdefault(shape, [])
            if idle:
                return idle.pop()
            name, source = uuid4().hex, self._array.async_array
            # `threading.max_workers` and the pipeline are read when an array is made.
            with zarr.config.set(NATIVE):
                store = LocalStore(_OPEN_FOLDERS / str(self._handle))
                array = zarr.AsyncArray(_of_one_shard(self._array, shape), StorePath(store, name), source.config)
        return self.folder / name / ".".join("0" * len(shape)), zarr.Array(array)


def encode_in_memory(array: zarr.Array[Any], voxels: NDArray[Any]) -> bytes | bytearray | memoryview:
    """Encode one shard as the array stores it, with zarr's own codecs.

    In an array of its own: zarr would read the stored shard before it overwrites it, and fail on a truncated one.
    """
    stored: dict[str, Any] = {}
    source = array.async_array
    metadata = _of_one_shard(array, voxels.shape)
    zarr.Array(zarr.AsyncArray(metadata, StorePath(MemoryStore(stored)), source.config))[...] = voxels
    (encoded,) = stored.values()
    content: bytes | bytearray | memoryview = encoded.as_buffer_like()
    return content


def _of_one_shard(array: zarr.Array[Any], shape: tuple[int, ...]) -> Any:
    """Metadata of an array of one shard, whose key is short."""
    metadata: Any = array.metadata
    if metadata.zarr_format == 2:
        return replace(metadata, shape=shape, dimension_separator=".")
    return replace(metadata, shape=shape, chunk_key_encoding=_KEY)


def rename_shard(partial: Path, path: Path) -> None:
    """Give a written shard its name, in a folder that may not be there yet.

    Raises:
        OSError: the written shard is gone, because its target was replaced or deleted.
    """
    try:
        partial.replace(path)
    except FileNotFoundError:
        if not partial.exists():
            raise
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(path)
