"""Volumes that are written: an OME-Zarr 0.5 group, uint8, sharded, with what made it in its attributes."""

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
from volseg.storage.journal import refuse_if_written
from volseg.storage.ome_zarr import image_attributes
from volseg.storage.run_record import RunRecord

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx, ZyxFloat


UNCERTAINTY = "uncertainty"
"""The volume inside a target that holds the standard deviation of the estimates."""


@dataclass(frozen=True)
class Target:
    """A volume to write to, in whole shards; with a channel axis in front where it holds several classes."""

    path: Path
    _array: zarr.Array[Any]

    @property
    def journal(self) -> Path:
        """The folder of the journal: inside the array's, where no reader of the group lists it."""
        return self.path / "0" / ".volseg"

    @property
    def shard(self) -> Zyx:
        """The unit of storage, in voxels."""
        z, y, x = (self._array.shards or self._array.chunks)[-3:]
        return z, y, x

    @property
    def channels(self) -> int:
        """Volumes along the channel axis; 0 where there is no such axis."""
        return int(self._array.shape[0]) if len(self._array.shape) > 3 else 0

    def write(self, box: Box, voxels: NDArray[Any]) -> str:
        """Write a box of whole shards, (z, y, x), or (c, z, y, x) for all channels; returns a digest of the voxels.

        What an earlier attempt left is deleted first: zarr reads a shard before it overwrites it, and would
        stumble over a truncated one.

        Raises:
            TargetError: the box is not made of whole shards (two tasks would share one, and lose data silently), or
                the store does not take it.
        """
        self.clear(box)
        try:
            self._array[(..., *box.slices)] = voxels
        except OSError as error:
            raise TargetError(f"cannot write {box} of {self.path}: {error}") from error
        return digest_of(voxels)

    def clear(self, box: Box) -> None:
        """Delete the whole shards of a box, for all channels: its voxels read as 0, the fill value.

        Raises:
            TargetError: the box is not made of whole shards, or the store does not let them go.
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
        """Read back what was written."""
        voxels: NDArray[Any] = self._array[(..., *box.slices)]  # type: ignore[assignment]  # zarr also types scalars here
        return voxels

    def _shard_files(self, box: Box) -> list[Path]:
        channels = [range(self.channels)] if self.channels else []
        spans = (range(a // s, -(-b // s)) for a, b, s in zip(box.start, box.stop, self.shard, strict=True))
        places = [*channels, *spans]
        return [self.path / "0" / self._array.metadata.encode_chunk_key(place) for place in product(*places)]


def digest_of(voxels: NDArray[Any]) -> str:
    """The digest that a mark carries, over the voxels in C order."""
    return blake2b(voxels.tobytes(), digest_size=16).hexdigest()


def create_volume(  # noqa: PLR0913 - a volume is these
    path: Path,
    *,
    shape: Zyx,
    shard: Zyx,
    chunk: Zyx,
    dtype: str,
    voxel_nm: ZyxFloat,
    name: str = "",
    channels: Sequence[str] = (),
) -> Target:
    """Create an empty OME-Zarr 0.5 volume; its metadata is complete before the first voxel is written.

    Args:
        path: where.
        shape: voxels along z, y, x.
        shard: its unit of storage; a shard holds one channel.
        chunk: what readers decode at once.
        dtype: of a voxel.
        voxel_nm: voxel size (z, y, x).
        name: the image's; that of the path by default.
        channels: names of the volumes along a channel axis in front; without any there is no such axis.

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
            # Else an all-zero block and a lost one would look alike.
            config={"write_empty_chunks": True},
        )
        group.attrs["ome"] = image_attributes(name or path.name.removesuffix(".zarr"), voxel_nm, channels)
    except OSError as error:
        raise TargetError(
            f"cannot create {path}: {error.strerror or error}; choose a folder that can be written"
        ) from error
    return Target(path, array)


def create_target(path: Path, record: RunRecord, voxel_nm: ZyxFloat) -> Target:
    """Create the target of a run, its record inside; it takes the place of a Zarr that stands there.

    It is built beside its path and renamed, so that a kill leaves the old volume, or the new one whole.

    Raises:
        TargetError: what stands there is no Zarr or is being written, or the path cannot be written.
    """
    refuse_other_than_zarr(path)
    building = path.with_name(f".{path.name}.{os.getpid()}.partial")
    name, settings = path.name.removesuffix(".zarr"), record.settings
    volumes = {building: name} | ({building / UNCERTAINTY: f"{name} {UNCERTAINTY}"} if settings.uncertainty else {})
    for place, called in volumes.items():
        create_volume(
            place,
            shape=record.source.shape,
            shard=settings.shard,
            chunk=settings.chunk,
            dtype="uint8",
            voxel_nm=voxel_nm,
            name=called,
            channels=settings.classes if len(settings.classes) > 1 else (),
        )
    zarr.open_group(building, mode="r+").attrs["volseg"] = record.to_attributes()
    replace_volume(building, path)
    return open_target(path)


def replace_volume(made: Path, path: Path) -> None:
    """Put a volume that was made beside a path into its place; what stood there is deleted last.

    Raises:
        TargetError: what stands there is no Zarr, is being written, or cannot be moved.
    """
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        if path.exists():
            refuse_other_than_zarr(path)
            refuse_if_written(path / "0" / ".volseg")
            path.rename(old)
        made.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise TargetError(f"cannot replace {path}: {error.strerror or error}") from error


def open_target(path: Path) -> Target:
    """Open a target to write further blocks.

    Raises:
        TargetError: there is none.
    """
    try:
        array = zarr.open_array(path / "0", mode="r+")
    except (OSError, ValueError) as error:
        raise TargetError(f"{path} is not a volume that volseg wrote: {error}") from error
    return Target(path, array.with_config({"write_empty_chunks": True, "order": "C"}))


def is_target(path: Path) -> bool:
    """Whether a run was begun at this path."""
    try:
        return "volseg" in json.loads((path / "zarr.json").read_text())["attributes"]
    except (OSError, KeyError, TypeError, ValueError):
        return False


def read_record(path: Path) -> RunRecord:
    """The record of the run that was begun at this path.

    Raises:
        TargetError: none was, or another version of volseg began it.
    """
    try:
        return RunRecord.model_validate_json(_attributes_json(path))
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise TargetError(f"{path} holds no run of volseg; name the target of a `volseg predict`") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise TargetError(
            f"the run record in {path} cannot be read ({'.'.join(map(str, first['loc']))}: {first['msg']}); "
            "use the version of volseg that began it, or start again with --overwrite"
        ) from error


def _attributes_json(path: Path) -> str:
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    return json.dumps(attributes["volseg"])


def refuse_other_than_zarr(path: Path) -> None:
    """Refuse to replace what stands at a path, unless it is a Zarr.

    Raises:
        TargetError: it is a file, or a folder of something else.
    """
    if path.exists() and not any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")):
        raise TargetError(f"{path} is not a Zarr, so --overwrite leaves it alone; delete it yourself if you mean it")
