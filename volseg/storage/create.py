"""Creation of targets: sharded OME-Zarr 0.5 groups, with the run record in their attributes."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from volseg.errors import TargetError
from volseg.storage.journal import journal_folder, lock_journal
from volseg.storage.object_client import is_object_url, split_url
from volseg.storage.object_path import ObjectPath
from volseg.storage.object_target import claim_object, has_target, new_object_target, open_target
from volseg.storage.ome_zarr import image_attributes
from volseg.storage.paths import UNCERTAINTY
from volseg.storage.publish import claim_target, staged
from volseg.storage.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from zarr.storage import MemoryStore

    from volseg.blocks import Level, Zyx
    from volseg.storage.object_path import TargetPath
    from volseg.storage.place import Place
    from volseg.storage.run_record import RunRecord


def create_volume(  # noqa: PLR0913 - properties of a volume
    path: Path,
    *,
    shape: Zyx,
    shard: Zyx | None,
    chunk: Zyx,
    dtype: str,
    place: Place,
    name: str = "",
    channels: Sequence[str] = (),
    levels: Sequence[Level] = (),
) -> Target:
    """Create an empty OME-Zarr 0.5 volume; its metadata is complete before the first voxel is written.

    Args:
        path: path of the new group.
        shape: voxels along z, y, x.
        shard: unit of storage, in voxels; a shard has one channel. None for a file for each chunk.
        chunk: unit of decoding, in voxels.
        dtype: data type.
        place: voxel size and translation.
        name: name of the image; by default that of the path.
        channels: channel names, for a channel axis before z; empty for no such axis.
        levels: the coarser ones.

    Returns:
        Level 0, without the coarser one.

    Raises:
        TargetError: the path exists, or cannot be written.
    """
    if path.exists():
        raise TargetError(f"{path} exists already; choose another path")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        array = _create_group(
            path,
            shape=shape,
            shard=shard,
            chunk=chunk,
            dtype=dtype,
            place=place,
            name=name or path.name.removesuffix(".zarr"),
            channels=channels,
            levels=levels,
        )
    except OSError as error:
        raise TargetError(f"cannot create {path}: {error.strerror or error}; choose a writable folder") from error
    return Target(path, array)


def _create_group(  # noqa: PLR0913 - properties of a volume
    root: Path | MemoryStore,
    inside: str = "",
    *,
    shape: Zyx,
    shard: Zyx | None,
    chunk: Zyx,
    dtype: str,
    place: Place,
    name: str,
    channels: Sequence[str],
    levels: Sequence[Level],
) -> zarr.Array[Any]:
    """Create the group of `create_volume` at a path in a store; returns level 0."""
    group = zarr.open_group(root, path=inside, mode="w-", zarr_format=3)
    arrays = [(shape, shard or chunk, chunk), *((level.shape, level.shard, level.chunk) for level in levels)]
    created = [
        group.create_array(
            str(number),
            shape=((len(channels),) if channels else ()) + voxels,
            shards=None if shard is None else (1,) * bool(channels) + unit,
            chunks=(1,) * bool(channels) + inner,
            dtype=dtype,
            fill_value=0,
            # Readers that know no shards often know no codec of checksums either.
            compressors=[ZstdCodec(level=3), Crc32cCodec()] if shard else [ZstdCodec(level=3, checksum=True)],
            dimension_names=(("c",) if channels else ()) + ("z", "y", "x"),
            # Otherwise an all-zero block would look like a lost one.
            config={"write_empty_chunks": True},
        )
        for number, (voxels, unit, inner) in enumerate(arrays)
    ]
    scales = [level.scale for level in levels]
    group.attrs["ome"] = image_attributes(name, place, channels, scales)
    return created[0]


def claim_output(location: str | Path, *, overwrite: bool, resume: bool | None = None) -> TargetPath:
    """As `claim_target`, also for the URL of an object store."""
    if is_object_url(str(location)):
        return claim_object(ObjectPath(*split_url(str(location))), overwrite=overwrite, resume=resume)
    return claim_target(location, overwrite=overwrite, resume=resume)


def target_exists(path: TargetPath) -> bool:
    """Whether something is at the place of a target; the rest of a creation that did not end is nothing."""
    return has_target(path) if isinstance(path, ObjectPath) else path.exists()


@contextmanager
def new_target(path: TargetPath, record: RunRecord, place: Place, *, overwrite: bool = False) -> Iterator[Target]:
    """Create the target of a run with its record, and hold the lock of its journal.

    It is created beside its path, locked and then renamed: a kill leaves either the old or the new volume, and no
    other run can write into the new one, or replace it, from the moment that it appears.

    Args:
        path: path of the new group.
        record: of the run.
        place: voxel size and translation.
        overwrite: replace a Zarr that is there.

    Raises:
        TargetError: the path is taken, is not a Zarr or is being written, or it cannot be written or locked.
    """
    name = path.name.removesuffix(".zarr")
    if isinstance(path, ObjectPath):
        metadata = partial(_create_volumes, name=name, record=record, place=place)
        with new_object_target(path, metadata, overwrite=overwrite) as target:
            yield target
        return
    with ExitStack() as stack:
        with staged(path, overwrite=overwrite) as new:
            _create_volumes(new, name, record, place)
            stack.enter_context(lock_journal(journal_folder(new)))
        yield open_target(path)


def _create_volumes(root: Path | MemoryStore, name: str, record: RunRecord, place: Place) -> None:
    """Create the volumes of a run, with its record."""
    settings = record.settings
    volumes = {"": name} | ({UNCERTAINTY: f"{name} {UNCERTAINTY}"} if settings.uncertainty else {})
    for inside, image_name in volumes.items():
        _create_group(
            root,
            inside,
            shape=record.shape,
            shard=settings.shard,
            chunk=settings.chunk,
            dtype="uint8",
            place=place,
            name=image_name,
            channels=settings.classes if len(settings.classes) > 1 else (),
            levels=record.levels,
        )
    zarr.open_group(root, mode="r+").attrs["volseg"] = record.to_attributes()


def create_target(path: TargetPath, record: RunRecord, place: Place, *, overwrite: bool = False) -> Target:
    """As `new_target`, without holding the lock."""
    with new_target(path, record, place, overwrite=overwrite) as target:
        return target
