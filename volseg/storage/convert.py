"""Conversion of volumes to OME-Zarr, a slab of whole shards at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volseg.blocks import Box, Zyx, ZyxFloat, ceil_to, is_voxel_size
from volseg.errors import ConfigError
from volseg.storage.axes import DEFAULT_OPTIONS, ReadOptions
from volseg.storage.create import create_volume
from volseg.storage.paths import refuse_overlap
from volseg.storage.publish import claim_target, staged
from volseg.storage.readers import open_sections
from volseg.storage.target import Target, open_target

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from volseg.storage.image_stack import Stack
    from volseg.storage.place import Place

_SHARD_YX = 1024
_SHARD_CHUNKS_Z = 2


def convert_stack(
    stack: Stack,
    path: Path,
    place: Place,
    on_sections: Callable[[int], None] = lambda done: None,
    *,
    overwrite: bool = False,
) -> Target:
    """Write a stack as an OME-Zarr 0.5 volume of the same data type.

    It is written to a temporary path beside `path` and renamed when it is complete.

    Args:
        stack: sections of any kind of volume (`open_sections`).
        path: path of the new volume.
        place: voxel size and translation.
        on_sections: callback with the number of sections written so far.
        overwrite: replace an existing Zarr when the new one is complete.

    Raises:
        TargetError: the path exists or cannot be written.
        SourceError: a section cannot be read.
    """
    path = claim_target(path, overwrite=overwrite)
    chunk = default_chunk(place.scale)
    z, y, x = stack.shape
    shard = (
        min(_SHARD_CHUNKS_Z * chunk[0], ceil_to(z, chunk[0])),
        min(_SHARD_YX, ceil_to(y, chunk[1])),
        min(_SHARD_YX, ceil_to(x, chunk[2])),
    )
    with staged(path, overwrite=overwrite) as new:
        target = create_volume(
            new,
            shape=stack.shape,
            shard=shard,
            chunk=chunk,
            dtype=stack.dtype,
            place=place,
            name=path.name.removesuffix(".zarr"),
        )
        for first in range(0, z, shard[0]):
            stop = min(first + shard[0], z)
            target.write(Box((first, 0, 0), (stop, y, x)), stack.read(first, stop))
            on_sections(stop)
        target.remove_partials()
    return open_target(path)


def conversion_target(source: str, target: str | Path, *, overwrite: bool) -> Path:
    """Path of the volume that a source becomes.

    Raises:
        TargetError: a URL, a path that exists and may not be replaced, or one inside the source or around it.
    """
    path = claim_target(target, overwrite=overwrite)
    refuse_overlap("source", source, path)
    return path


def convert_volume(
    source: str,
    path: str | Path,
    voxel_nm: ZyxFloat | None = None,
    on_sections: Callable[[int], None] = lambda done: None,
    *,
    options: ReadOptions = DEFAULT_OPTIONS,
    overwrite: bool = False,
) -> Target:
    """As `convert_stack`, of a source that is named.

    Args:
        source: location of a TIFF, a folder of sections, FILE.h5:DATASET, or a Zarr.
        path: of the volume to create.
        voxel_nm: (z, y, x) in nanometres; by default what the source states. It keeps its translation in voxels.
        on_sections: called with the number of sections written.
        options: axes and channel of the source, and what to read for missing sections.
        overwrite: replace a Zarr at the path, once the new one is complete.

    Raises:
        ConfigError: no voxel size is given or stated, or one below 0.1 nm is given.
        TargetError: the path exists or cannot be written.
        SourceError: the source cannot be read.
    """
    path = conversion_target(source, path, overwrite=overwrite)
    stack = open_sections(source, options=options)
    return convert_stack(stack, path, target_place(source, stack.place, voxel_nm), on_sections, overwrite=overwrite)


def target_place(source: str, stated: Place, voxel_nm: ZyxFloat | None) -> Place:
    """Return the place of a converted volume: that which its source states, with the given voxel size if there is one.

    Raises:
        ConfigError: no voxel size is given or stated, or one below 0.1 nm is given.
    """
    if voxel_nm is not None:
        if not is_voxel_size(voxel_nm):
            raise ConfigError(f"voxel size {voxel_nm} is below 0.1 nm; give it as Z,Y,X in nanometres, such as 50,4,4")
        return stated.with_voxel_nm(voxel_nm)
    if not stated.is_nm:
        reason = f" ({stated.problem})" if stated.problem else ""
        raise ConfigError(f"{source} states no voxel size{reason}; give --voxel-size Z,Y,X in nanometres")
    return stated


def default_chunk(voxel_nm: ZyxFloat) -> Zyx:
    """Return a chunk of 2^18 voxels with about the same length in nanometres along every axis.

    >>> default_chunk((30, 6, 6)), default_chunk((8, 8, 8))
    ((16, 128, 128), (64, 64, 64))
    """
    z, y, x = voxel_nm
    return (16, 128, 128) if z >= 3 * max(y, x) else (64, 64, 64)
