"""Targets: sharded OME-Zarr 0.5 groups, with the run record in their attributes."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from volseg.errors import TargetError
from volseg.storage.journal import journal_folder, lock_journal
from volseg.storage.marks import Written, digest_of, joint_digest
from volseg.storage.ome_zarr import image_attributes
from volseg.storage.paths import UNCERTAINTY
from volseg.storage.publish import staged
from volseg.storage.shards import ShardFiles, rename_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx
    from volseg.storage.place import Place
    from volseg.storage.run_record import RunRecord


_PARTIALS = ".partial"


@dataclass(frozen=True)
class Target:
    """A volume to write in whole shards, (z, y, x), or (c, z, y, x) for several classes."""

    path: Path
    _array: zarr.Array[Any]
    _files: list[ShardFiles] = field(default_factory=list, compare=False)

    @property
    def journal(self) -> Path:
        """Folder of the journal."""
        return journal_folder(self.path)

    @property
    def shard(self) -> Zyx:
        """Unit of storage, in voxels."""
        z, y, x = (self._array.shards or self._array.chunks)[-3:]
        return z, y, x

    @property
    def channels(self) -> int:
        """Length of the channel axis; 0 if there is none."""
        return int(self._array.shape[0]) if len(self._array.shape) > 3 else 0

    @property
    def form(self) -> dict[str, Any]:
        """Shape, type, shards and chunks of the array, channels included."""
        array = self._array
        return {"shape": array.shape, "type": array.dtype.name, "shards": array.shards, "chunks": array.chunks}

    def write(self, box: Box, voxels: NDArray[Any], check: Callable[[], object] = lambda: None) -> Written:
        """Write a box of whole shards, (z, y, x), or (c, z, y, x) for all channels, and sync them to the disk.

        Each shard is written beside the others and then renamed, so that a reader sees the old one or the new.

        Args:
            box: of the voxels.
            voxels: to write.
            check: called when the shards are written and not yet renamed; raises if the target is another's. A target
                that is exchanged later takes the written shards with it, so that none is renamed into the new one.

        Raises:
            TargetError: the box is not made of whole shards (two tasks would share one, and lose data silently), or
                the voxels cannot be written.
        """
        self._refuse_shared(box)
        written: dict[Path, Path] = {}
        try:
            stored = [self._write_partial(shard, box, voxels, written) for shard in self._shards(box)]
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
        sizes, digests = zip(*stored, strict=True)
        return Written(voxel_digest(voxels), sum(sizes), joint_digest(digests))

    def _write_partial(
        self, shard: tuple[int, ...], box: Box, voxels: NDArray[Any], written: dict[Path, Path]
    ) -> tuple[int, str]:
        """Write a shard under a temporary name; returns the bytes of its file, and their digest.

        Args:
            shard: its position.
            box: of the voxels.
            voxels: of the box.
            written: receives the temporary path, and that which the shard is to have.
        """
        position = dict(zip("czyx"[-len(shard) :], shard, strict=True))
        part = [
            slice(position[axis] * n - a, min(b, (position[axis] + 1) * n) - a)
            for axis, n, a, b in zip("zyx", self.shard, box.start, box.stop, strict=True)
        ]
        channel = [slice(position["c"], position["c"] + 1)] if self.channels else []
        partial = self._shard_files().write(np.ascontiguousarray(voxels[(*channel, *part)]))
        written[partial] = self._shard_file(shard)
        content = partial.read_bytes()
        return len(content), digest_of(content)

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

    def shard_files(self, box: Box) -> list[Path]:
        """Files of the shards of a box, in the order of their digests in a mark."""
        return [self._shard_file(shard) for shard in self._shards(box)]

    def shard_folder(self, channel: int, z: int, y: int) -> Path:
        """Folder of a row of shards along x, which are named by their number in it."""
        return self._shard_file((*([channel] if self.channels else []), z, y, 0)).parent

    def shard_folders(self, box: Box) -> set[Path]:
        """Folders of the shards of a box."""
        return {self._shard_file(shard).parent for shard in self._shards(box)}

    def remove_partials(self) -> None:
        """Delete shards that were not renamed, because their process died."""
        shutil.rmtree(self.path / "0" / _PARTIALS, ignore_errors=True)

    def _shard_files(self) -> ShardFiles:
        """The folder of shards that are being written; it is made in the target, and never makes a target."""
        if not self._files or not self._files[0].is_open:  # another run of this target has removed it
            self._files[:] = [ShardFiles(self._array, self.path / "0" / _PARTIALS)]
        return self._files[0]

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
    return digest_of(np.ascontiguousarray(voxels).data)


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
            shards=None if shard is None else (1,) * bool(channels) + shard,
            chunks=(1,) * bool(channels) + chunk,
            dtype=dtype,
            fill_value=0,
            # Readers that know no shards often know no codec of checksums either.
            compressors=[ZstdCodec(level=3), Crc32cCodec()] if shard else [ZstdCodec(level=3, checksum=True)],
            dimension_names=(("c",) if channels else ()) + ("z", "y", "x"),
            # Otherwise an all-zero block would look like a lost one.
            config={"write_empty_chunks": True},
        )
        group.attrs["ome"] = image_attributes(name or path.name.removesuffix(".zarr"), place, channels)
    except OSError as error:
        raise TargetError(f"cannot create {path}: {error.strerror or error}; choose a writable folder") from error
    return Target(path, array)


@contextmanager
def new_target(path: Path, record: RunRecord, place: Place, *, overwrite: bool = False) -> Iterator[Target]:
    """Create the target of a run with its record, at the place of its source, and hold the lock of its journal.

    It is created beside its path, locked and then renamed: a kill leaves either the old or the new volume, and no
    other run can write into the new one, or replace it, from the moment that it appears.

    Args:
        path: path of the new group.
        record: of the run.
        place: voxel size and translation of the source.
        overwrite: replace a Zarr that is there.

    Raises:
        TargetError: the path is taken, is not a Zarr or is being written, or it cannot be written or locked.
    """
    settings = record.settings
    with ExitStack() as stack:
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
            stack.enter_context(lock_journal(journal_folder(new)))
        yield open_target(path)


def create_target(path: Path, record: RunRecord, place: Place, *, overwrite: bool = False) -> Target:
    """As `new_target`, without holding the lock."""
    with new_target(path, record, place, overwrite=overwrite) as target:
        return target


def open_target(path: Path) -> Target:
    """Open a target to write more blocks.

    Raises:
        TargetError: there is no target.
    """
    try:
        array = zarr.open_array(path / "0", mode="r+")
    except Exception as error:  # each field of the metadata raises errors of its own
        raise TargetError(
            f"{path} is not a target of volseg: {error}; `volseg verify` tells what was changed"
        ) from error
    return Target(path, array.with_config({"write_empty_chunks": True, "order": "C"}))
