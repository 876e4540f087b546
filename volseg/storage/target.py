"""Targets: sharded OME-Zarr 0.5 groups, with the run record in their attributes."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from hashlib import blake2b
from itertools import product
from typing import TYPE_CHECKING, Any

import zarr
from pydantic import ValidationError
from zarr.codecs import Crc32cCodec, ZstdCodec

from volseg.errors import TargetError
from volseg.storage.journal import refuse_if_locked
from volseg.storage.ome_zarr import image_attributes
from volseg.storage.run_record import RunRecord

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx
    from volseg.storage.place import Place


UNCERTAINTY = "uncertainty"
"""Name of the volume inside a target with the standard deviation of the estimates."""


@dataclass(frozen=True)
class Target:
    """A volume to write in whole shards, (z, y, x), or (c, z, y, x) for several classes."""

    path: Path
    _array: zarr.Array[Any]

    @property
    def journal(self) -> Path:
        """Folder of the journal: inside the array's folder, where readers of the group do not list it."""
        return self.path / "0" / ".volseg"

    @property
    def shard(self) -> Zyx:
        """Unit of storage, in voxels."""
        z, y, x = (self._array.shards or self._array.chunks)[-3:]
        return z, y, x

    @property
    def channels(self) -> int:
        """Length of the channel axis; 0 if there is none."""
        return int(self._array.shape[0]) if len(self._array.shape) > 3 else 0

    def write(self, box: Box, voxels: NDArray[Any]) -> str:
        """Write a box of whole shards, (z, y, x), or (c, z, y, x) for all channels; return a digest of the voxels.

        Shards of an earlier attempt are deleted first: zarr reads a shard before it overwrites it, and fails on a
        truncated one.

        Raises:
            TargetError: the box is not made of whole shards (two tasks would share one, and lose data silently), or
                the voxels cannot be written.
        """
        self.clear(box)
        try:
            self._array[(..., *box.slices)] = voxels
        except OSError as error:
            raise TargetError(f"cannot write {box} of {self.path}: {error}") from error
        return voxel_digest(voxels)

    def clear(self, box: Box) -> None:
        """Delete the shards of a box, for all channels: its voxels read as 0, the fill value.

        Raises:
            TargetError: the box is not made of whole shards, or they cannot be deleted.
        """
        ends = zip(box.start, box.stop, self.shard, self._array.shape[-3:], strict=True)
        if any(a % s or (b % s and b != n) for a, b, s, n in ends):
            raise TargetError(f"box {box} is not made of whole shards {self.shard} of {self.path}")
        try:
            for shard in self._shard_files(box):
                shard.unlink(missing_ok=True)
        except OSError as error:
            raise TargetError(f"cannot write {box} of {self.path}: {error}") from error

    def read(self, box: Box) -> NDArray[Any]:
        """Read the voxels of a box."""
        voxels: NDArray[Any] = self._array[(..., *box.slices)]  # type: ignore[assignment]  # zarr also types scalars here
        return voxels

    def _shard_files(self, box: Box) -> list[Path]:
        channels = [range(self.channels)] if self.channels else []
        spans = (range(a // s, -(-b // s)) for a, b, s in zip(box.start, box.stop, self.shard, strict=True))
        keys = map(self._array.metadata.encode_chunk_key, product(*channels, *spans))
        return [self.path / "0" / key for key in keys]


def voxel_digest(voxels: NDArray[Any]) -> str:
    """Return the digest of voxels in C order, for a mark of the journal."""
    return blake2b(voxels.tobytes(), digest_size=16).hexdigest()


def create_volume(  # noqa: PLR0913 - properties of a volume
    path: Path,
    *,
    shape: Zyx,
    shard: Zyx,
    chunk: Zyx,
    dtype: str,
    place: Place,
    name: str = "",
    channels: Sequence[str] = (),
) -> Target:
    """Create an empty OME-Zarr 0.5 volume; its metadata is complete before the first voxel is written.

    Args:
        path: path of the new group.
        shape: voxels along z, y, x.
        shard: unit of storage, in voxels; a shard has one channel.
        chunk: unit of decoding, in voxels.
        dtype: data type.
        place: voxel size and translation.
        name: name of the image; by default that of the path.
        channels: channel names, for a channel axis before z; empty for no such axis.

    Raises:
        TargetError: the path exists, or cannot be written.
    """
    if path.exists():
        raise TargetError(f"{path} exists already; choose another path")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        group = zarr.open_group(path, mode="w-", zarr_format=3)
        array = group.create_array(
            "0",
            shape=((len(channels),) if channels else ()) + shape,
            shards=(1,) * bool(channels) + shard,
            chunks=(1,) * bool(channels) + chunk,
            dtype=dtype,
            fill_value=0,
            compressors=[ZstdCodec(level=3), Crc32cCodec()],
            dimension_names=(("c",) if channels else ()) + ("z", "y", "x"),
            # Otherwise an all-zero block would look like a lost one.
            config={"write_empty_chunks": True},
        )
        group.attrs["ome"] = image_attributes(name or path.name.removesuffix(".zarr"), place, channels)
    except OSError as error:
        raise TargetError(f"cannot create {path}: {error.strerror or error}; choose a writable folder") from error
    return Target(path, array)


def create_target(path: Path, record: RunRecord, place: Place) -> Target:
    """Create the target of a run with its record, at the place of its source; an existing Zarr is replaced.

    It is created at a temporary path and renamed, so that a kill leaves either the old or the new volume.

    Raises:
        TargetError: the path is not a Zarr or is being written, or it cannot be written.
    """
    refuse_non_zarr(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    name, settings = path.name.removesuffix(".zarr"), record.settings
    volumes = {partial: name} | ({partial / UNCERTAINTY: f"{name} {UNCERTAINTY}"} if settings.uncertainty else {})
    for volume_path, image_name in volumes.items():
        create_volume(
            volume_path,
            shape=record.source.shape,
            shard=settings.shard,
            chunk=settings.chunk,
            dtype="uint8",
            place=place,
            name=image_name,
            channels=settings.classes if len(settings.classes) > 1 else (),
        )
    zarr.open_group(partial, mode="r+").attrs["volseg"] = record.to_attributes()
    replace_volume(partial, path)
    return open_target(path)


def replace_volume(new: Path, path: Path) -> None:
    """Rename a new volume to a path; an existing volume there is deleted last.

    Raises:
        TargetError: the existing path is not a Zarr, is being written, or cannot be moved.
    """
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        if path.exists():
            refuse_non_zarr(path)
            refuse_if_locked(path / "0" / ".volseg")
            path.rename(old)
        new.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise TargetError(f"cannot replace {path}: {error.strerror or error}") from error


def open_target(path: Path) -> Target:
    """Open a target to write more blocks.

    Raises:
        TargetError: there is no target.
    """
    try:
        array = zarr.open_array(path / "0", mode="r+")
    except (OSError, ValueError) as error:
        raise TargetError(f"{path} is not a target of volseg: {error}") from error
    return Target(path, array.with_config({"write_empty_chunks": True, "order": "C"}))


def is_target(path: Path) -> bool:
    """Whether a path is the target of a run."""
    try:
        return "volseg" in json.loads((path / "zarr.json").read_text())["attributes"]
    except (OSError, KeyError, TypeError, ValueError):
        return False


def read_record(path: Path) -> RunRecord:
    """Read the run record of a target.

    Raises:
        TargetError: the path is not a target, or another version of volseg wrote the record.
    """
    try:
        attributes = json.loads((path / "zarr.json").read_text())["attributes"]
        return RunRecord.model_validate_json(json.dumps(attributes["volseg"]))
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise TargetError(f"{path} has no run record; name the target of a `volseg predict`") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise TargetError(
            f"the run record in {path} cannot be read ({'.'.join(map(str, first['loc']))}: {first['msg']}); "
            "use the version of volseg that wrote it, or start again with --overwrite"
        ) from error


def refuse_non_zarr(path: Path) -> None:
    """Refuse to replace a path that exists and is not a Zarr.

    Raises:
        TargetError: the path is a file, or another folder.
    """
    if path.exists() and not any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")):
        raise TargetError(f"{path} is not a Zarr, so --overwrite does not replace it; delete it or choose another path")
