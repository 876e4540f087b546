"""Targets: sharded OME-Zarr 0.5 groups, with the run record in their attributes."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import product
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import zarr
from pydantic import ValidationError
from zarr.codecs import Crc32cCodec, ZstdCodec

from volseg.errors import TargetError
from volseg.storage.durable import write_synced
from volseg.storage.ome_zarr import image_attributes
from volseg.storage.paths import UNCERTAINTY
from volseg.storage.publish import staged
from volseg.storage.run_record import RunRecord
from volseg.storage.shards import encode_shard, rename_shard
from volseg.text import parse_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx
    from volseg.storage.place import Place


_PARTIALS = ".partial"


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

    def write(self, box: Box, voxels: NDArray[Any], check: Callable[[], object] = lambda: None) -> tuple[str, int]:
        """Write a box of whole shards, (z, y, x), or (c, z, y, x) for all channels, and sync them to the disk.

        Each shard is written beside the others and then renamed, so that a reader sees the old one or the new.

        Args:
            box: of the voxels.
            voxels: to write.
            check: called when the shards are written and not yet renamed; raises if the target is another's. A target
                that is exchanged later takes the written shards with it, so that none is renamed into the new one.

        Returns:
            The digest of the voxels, and the bytes of the shards.

        Raises:
            TargetError: the box is not made of whole shards (two tasks would share one, and lose data silently), or
                the voxels cannot be written.
        """
        self._refuse_shared(box)
        written: dict[Path, Path] = {}
        try:
            size = sum(self._write_partial(shard, box, voxels, written) for shard in self._shards(box))
            check()
            for partial, path in written.items():
                rename_shard(partial, path)
        except TargetError:
            raise
        except OSError as error:
            raise TargetError(f"cannot write {box} of {self.path}: {error}") from error
        finally:
            for partial in written:  # what was not renamed
                partial.unlink(missing_ok=True)
        return voxel_digest(voxels), size

    def _write_partial(self, shard: tuple[int, ...], box: Box, voxels: NDArray[Any], written: dict[Path, Path]) -> int:
        """Write a shard under a temporary name; returns its bytes.

        Args:
            shard: its position.
            box: of the voxels.
            voxels: of the box.
            written: receives the temporary path, and that which the shard is to have.
        """
        partial = self._partials() / uuid4().hex
        written[partial] = self._shard_file(shard)
        return write_synced(partial, encode_shard(self._array, shard, self.shard, box, voxels))

    def clear(self, box: Box, check: Callable[[], object] = lambda: None) -> None:
        """Delete the shards of a box, for all channels: its voxels read as 0, the fill value.

        Args:
            box: of the voxels.
            check: as in `write`; a target that is exchanged after it keeps its shards.

        Raises:
            TargetError: the box is not made of whole shards, or they cannot be deleted.
        """
        self._refuse_shared(box)
        try:
            folder = os.open(self.path / "0", os.O_RDONLY)
            try:
                check()
                for shard in self._shards(box):
                    with suppress(FileNotFoundError):
                        os.unlink(self._array.metadata.encode_chunk_key(shard), dir_fd=folder)
            finally:
                os.close(folder)
        except TargetError:
            raise
        except OSError as error:
            raise TargetError(f"cannot write {box} of {self.path}: {error}") from error

    def read(self, box: Box) -> NDArray[Any]:
        """Read the voxels of a box."""
        voxels: NDArray[Any] = self._array[(..., *box.slices)]  # type: ignore[assignment]  # zarr also types scalars here
        return voxels

    def shard_folder(self, channel: int, z: int, y: int) -> Path:
        """Folder of a row of shards along x, which are named by their number in it."""
        return self._shard_file((*([channel] if self.channels else []), z, y, 0)).parent

    def shard_folders(self, box: Box) -> set[Path]:
        """Folders of the shards of a box."""
        return {self._shard_file(shard).parent for shard in self._shards(box)}

    def remove_partials(self) -> None:
        """Delete shards that were not renamed, because their process died."""
        shutil.rmtree(self.path / "0" / _PARTIALS, ignore_errors=True)

    def _partials(self) -> Path:
        """Folder of shards that are being written; it is made in the target, and never makes a target."""
        folder = self.path / "0" / _PARTIALS
        folder.mkdir(exist_ok=True)
        return folder

    def _refuse_shared(self, box: Box) -> None:
        ends = zip(box.start, box.stop, self.shard, self._array.shape[-3:], strict=True)
        if any(a % s or (b % s and b != n) for a, b, s, n in ends):
            raise TargetError(f"box {box} is not made of whole shards {self.shard} of {self.path}")

    def _shards(self, box: Box) -> Iterator[tuple[int, ...]]:
        """Positions of the shards of a box, (z, y, x) or (c, z, y, x), in units of shards."""
        channels = [range(self.channels)] if self.channels else []
        spans = (range(a // s, -(-b // s)) for a, b, s in zip(box.start, box.stop, self.shard, strict=True))
        return product(*channels, *spans)

    def _shard_file(self, position: tuple[int, ...]) -> Path:
        return self.path / "0" / self._array.metadata.encode_chunk_key(position)


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


def create_target(path: Path, record: RunRecord, place: Place, *, overwrite: bool = False) -> Target:
    """Create the target of a run with its record, at the place of its source.

    It is created beside its path and renamed, so that a kill leaves either the old or the new volume.

    Args:
        path: path of the new group.
        record: of the run.
        place: voxel size and translation of the source.
        overwrite: replace a Zarr that is there.

    Raises:
        TargetError: the path is taken, is not a Zarr or is being written, or it cannot be written.
    """
    settings = record.settings
    with staged(path, overwrite=overwrite) as new:
        name = path.name.removesuffix(".zarr")
        volumes = {new: name} | ({new / UNCERTAINTY: f"{name} {UNCERTAINTY}"} if settings.uncertainty else {})
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
        zarr.open_group(new, mode="r+").attrs["volseg"] = record.to_attributes()
    return open_target(path)


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
        return "volseg" in parse_object((path / "zarr.json").read_bytes())["attributes"]
    except (OSError, KeyError, TypeError, ValueError):
        return False


def read_record(path: Path) -> RunRecord:
    """Read the run record of a target.

    Raises:
        TargetError: the path is not a target, or another version of volseg wrote the record.
    """
    try:
        attributes = parse_object((path / "zarr.json").read_bytes())["attributes"]
        return RunRecord.model_validate_json(json.dumps(attributes["volseg"]))
    except ValidationError as error:
        first = error.errors()[0]
        raise TargetError(
            f"the run record in {path} cannot be read ({'.'.join(map(str, first['loc']))}: {first['msg']}); "
            "use the version of volseg that wrote it, or start again with --overwrite"
        ) from error
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise TargetError(f"{path} has no run record; name the target of a `volseg predict`") from error
