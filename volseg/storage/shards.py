"""One shard of an array: encoded in memory, and named when it is on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import zarr
from zarr.storage import MemoryStore, StorePath

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx


def encode_shard(
    array: zarr.Array[Any], shard: tuple[int, ...], size: Zyx, box: Box, voxels: NDArray[Any]
) -> bytes | bytearray | memoryview:
    """Encode a shard as the array stores it.

    In an array of its own: zarr would read the stored shard before it overwrites it, and fail on a truncated one.

    Args:
        array: whose metadata count.
        shard: position, (z, y, x) or (c, z, y, x), in units of shards.
        size: of a shard (z, y, x), in voxels.
        box: of the voxels; it covers the shard, or ends at the edge of the volume.
        voxels: of the box.
    """
    stored: dict[str, Any] = {}
    source = array.async_array
    memory = zarr.Array(zarr.AsyncArray(source.metadata, StorePath(MemoryStore(stored)), source.config))
    part = [slice(p * s, min(b, (p + 1) * s)) for b, p, s in zip(box.stop, shard[-3:], size, strict=True)]
    inner = [slice(p.start - a, p.stop - a) for p, a in zip(part, box.start, strict=True)]
    channel: tuple[Any, ...] = shard[:-3]
    memory[(*channel, *part)] = voxels[(*channel, *inner)]
    (encoded,) = stored.values()
    content: bytes | bytearray | memoryview = encoded.as_buffer_like()
    return content


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
