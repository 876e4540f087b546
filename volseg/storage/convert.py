"""Volumes of every kind made into OME-Zarr, a slab of whole shards at a time."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from volseg.blocks import Box, Zyx, ZyxFloat, ceil_to
from volseg.errors import ConfigError, TargetError
from volseg.storage.readers import open_sections
from volseg.storage.target import Target, create_volume, open_target, refuse_other_than_zarr, replace_volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from volseg.storage.image_stack import Stack

_SHARD_YX = 1024
_SHARD_CHUNKS_Z = 2


def convert_stack(
    stack: Stack,
    path: Path,
    voxel_nm: ZyxFloat,
    on_sections: Callable[[int], None] = lambda done: None,
    *,
    overwrite: bool = False,
) -> Target:
    """Write a stack as an OME-Zarr 0.5 volume of the same type.

    It appears under its name only when it is whole: until then it is built beside it.

    Args:
        stack: the sections, of any kind of volume (`open_sections`).
        path: the volume to make.
        voxel_nm: its voxel size (z, y, x) in nanometres.
        on_sections: told how many sections are written.
        overwrite: replace a Zarr that stands there, once the new one is whole.

    Raises:
        TargetError: the path exists or cannot be written.
        SourceError: a section cannot be read.
    """
    if path.exists() and not overwrite:
        raise TargetError(f"{path} exists already; choose another path, or give --overwrite")
    refuse_other_than_zarr(path)
    building = path.with_name(f".{path.name}.{os.getpid()}.partial")
    chunk = chunk_for(voxel_nm)
    z, y, x = stack.shape
    shard = (
        min(_SHARD_CHUNKS_Z * chunk[0], ceil_to(z, chunk[0])),
        min(_SHARD_YX, ceil_to(y, chunk[1])),
        min(_SHARD_YX, ceil_to(x, chunk[2])),
    )
    try:
        target = create_volume(
            building,
            shape=stack.shape,
            shard=shard,
            chunk=chunk,
            dtype=stack.dtype,
            voxel_nm=voxel_nm,
            name=path.name.removesuffix(".zarr"),
        )
        for first in range(0, z, shard[0]):
            stop = min(first + shard[0], z)
            target.write(Box((first, 0, 0), (stop, y, x)), stack.read(first, stop))
            on_sections(stop)
        replace_volume(building, path)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return open_target(path)


def convert_volume(
    source: str,
    path: Path,
    voxel_nm: ZyxFloat | None = None,
    on_sections: Callable[[int], None] = lambda done: None,
    *,
    overwrite: bool = False,
) -> Target:
    """As `convert_stack`, of a source that is named.

    Args:
        source: location of a TIFF, a folder of sections, FILE.h5:DATASET, or a Zarr.
        path: of the volume to create.
        voxel_nm: (z, y, x) in nanometres; by default what the source states.
        on_sections: called with the number of sections written.
        overwrite: replace a Zarr at the path, once the new one is complete.

    Raises:
        ConfigError: no voxel size is given or stated.
        TargetError: the path exists or cannot be written.
        SourceError: the source cannot be read.
    """
    stack, stated_nm = open_sections(source)
    if voxel_nm is None and stated_nm is None:
        raise ConfigError(f"{source} states no voxel size; give --voxel-size Z,Y,X in nanometres")
    return convert_stack(stack, path, voxel_nm or stated_nm or (1.0, 1.0, 1.0), on_sections, overwrite=overwrite)


def chunk_for(voxel_nm: ZyxFloat) -> Zyx:
    """A chunk of 2^18 voxels, about as long in nanometres along every axis.

    >>> chunk_for((30, 6, 6)), chunk_for((8, 8, 8))
    ((16, 128, 128), (64, 64, 64))
    """
    z, y, x = voxel_nm
    return (16, 128, 128) if z >= 3 * max(y, x) else (64, 64, 64)
