"""Sizes of chunks and shards if none are given."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from volseg.blocks import ceil_to, to_zyx
from volseg.errors import GridError

if TYPE_CHECKING:
    from volseg.blocks import Zyx, ZyxFloat
    from volseg.storage.writers.base import LayoutRequest

_SHARD_YX = 1024
_SHARD_CHUNKS_Z = 2
_MAX_SHARD_BYTES = 1 << 27
"""Of the voxels of a shard, which a worker holds at once."""


def default_chunk(voxel_nm: ZyxFloat) -> Zyx:
    """Return a chunk of 2^18 voxels with about the same length in nanometres along every axis.

    >>> default_chunk((30, 6, 6)), default_chunk((8, 8, 8))
    ((16, 128, 128), (64, 64, 64))
    """
    z, y, x = voxel_nm
    return (16, 128, 128) if z >= 3 * max(y, x) else (64, 64, 64)


def default_shard(chunk: Zyx, shape: Zyx, item: int) -> Zyx:
    """Return a shard of whole chunks: 1024 x 1024 and two chunks along z, or fewer where the volume or the bytes end.

    >>> default_shard((16, 128, 128), (20, 3000, 300), 1), default_shard((64, 64, 64), (999, 2048, 2048), 8)
    ((32, 1024, 384), (64, 512, 512))
    """
    z = min(_SHARD_CHUNKS_Z * chunk[0], ceil_to(shape[0], chunk[0]))
    y, x = (min(max(_SHARD_YX // c * c, c), ceil_to(n, c)) for n, c in zip(shape[1:], chunk[1:], strict=True))
    if z * y * x * item > _MAX_SHARD_BYTES:
        z = chunk[0]
    while z * y * x * item > _MAX_SHARD_BYTES and max(y // chunk[1], x // chunk[2]) > 1:
        y, x = (max(ceil_to(n // 2, c), c) for n, c in zip((y, x), chunk[1:], strict=True))
    return z, y, x


def sharded_layout(request: LayoutRequest, item: int) -> tuple[Zyx, Zyx | None]:
    """The chunk and the shard of a request; a shard of whole chunks.

    Raises:
        GridError: chunks that do not divide the shards.
    """
    chunk = request.chunk or default_chunk(request.place.scale)
    if request.shard is not None and request.chunk is None:
        chunk = to_zyx(c if s % c == 0 else s for s, c in zip(request.shard, chunk, strict=True))
    if not request.sharded:
        return chunk, None
    shard = request.shard or default_shard(chunk, request.shape, item)
    if any(s % c for s, c in zip(shard, chunk, strict=True)):
        raise GridError(
            f"shard {shard} is not made of whole chunks {chunk}; choose a --shard that is a multiple of the --chunk "
            "along each axis, or leave it out"
        )
    if prod(shard) * item > 1 << 31:
        raise GridError(f"a shard of {shard} takes more than 2 GiB; choose a smaller --shard")
    return chunk, shard
