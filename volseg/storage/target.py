"""Targets: volumes that are written in whole shards, and their coarser half with them."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import coarser_box
from volseg.errors import TargetError
from volseg.ops import downsample_mean, downsample_mode
from volseg.storage.journal import journal_folder
from volseg.storage.marks import Written, digest_of, joint_digest
from volseg.storage.shards import ShardFiles, rename_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import zarr
    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx
    from volseg.storage.object_path import TargetPath

_PARTIALS = ".partial"


@dataclass(frozen=True)
class Target:
    """A level of a volume to write in whole shards, (z, y, x), or (c, z, y, x) for several classes.

    Attributes:
        path: of the volume's group.
        level: name of the array in it.
        coarser: the next coarser level, if its shards are written with those of this one: as many, and made of them.
        factor: voxels along z, y, x that a voxel of `coarser` is made of.
        is_labels: whether coarser levels hold the most frequent voxel, not the mean.
    """

    path: TargetPath
    _array: zarr.Array[Any]
    level: str = "0"
    coarser: Target | None = None
    factor: Zyx = (1, 1, 1)
    is_labels: bool = False
    _files: list[ShardFiles] = field(default_factory=list, compare=False)

    @property
    def parts(self) -> tuple[Target, ...]:
        """This level, and the coarser one that is written with it."""
        return (self,) if self.coarser is None else (self, *self.coarser.parts)

    @property
    def folder(self) -> TargetPath:
        """Of the array."""
        return self.path / self.level

    @property
    def journal(self) -> TargetPath:
        """Folder of the journal."""
        return journal_folder(self.path)

    @property
    def shard(self) -> Zyx:
        """Unit of storage, in voxels."""
        z, y, x = (self._array.shards or self._array.chunks)[-3:]
        return z, y, x

    @property
    def leading(self) -> tuple[int, ...]:
        """Lengths of the axes before z."""
        return tuple(self._array.shape[:-3])

    @property
    def channels(self) -> int:
        """Positions along the axes before z; 0 if there are none."""
        return prod(self.leading) if self.leading else 0

    @property
    def form(self) -> dict[str, Any]:
        """Shape, type, shards and chunks of the array, channels included."""
        array = self._array
        return {"shape": array.shape, "type": array.dtype.name, "shards": array.shards, "chunks": array.chunks}

    def write(self, box: Box, voxels: NDArray[Any], check: Callable[[], object] = lambda: None) -> Written:
        """Write a box of whole shards, (z, y, x), or (c, z, y, x) for all channels, and sync them to the disk.

        Each shard is written beside the others and then renamed, so that a reader sees the old one or the new; those of
        the coarser level likewise.

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
            stored = list(self._write_partials(box, voxels, written))
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

    def _write_partials(self, box: Box, voxels: NDArray[Any], written: dict[Path, Path]) -> Iterator[tuple[int, str]]:
        """Write the shards of a box, and of the coarser level's, as `_write_partial` does."""
        for shard in self._shards(box):
            yield self._write_partial(shard, box, voxels, written)
        if self.coarser is not None:
            half = self.downsample(voxels, self.factor)
            yield from self.coarser._write_partials(coarser_box(box, self.factor), half, written)

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
        partial = self._shard_files().write(np.ascontiguousarray(self._part(shard, box, voxels)))
        written[partial] = _on_disk(self._shard_file(shard))
        content = partial.read_bytes()
        return len(content), digest_of(content)

    def _part(self, shard: tuple[int, ...], box: Box, voxels: NDArray[Any]) -> NDArray[Any]:
        """The voxels of a shard, by its position, of those of a box."""
        part = [
            slice(p * n - a, min(b, (p + 1) * n) - a)
            for p, n, a, b in zip(shard[-3:], self.shard, box.start, box.stop, strict=True)
        ]
        return voxels[(*(slice(p, p + 1) for p in shard[:-3]), *part)]

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
            folder = os.open(_on_disk(self.folder), os.O_RDONLY)
            try:
                check()
                for shard in self._shards(box):
                    with suppress(FileNotFoundError):
                        os.unlink(self._array.metadata.encode_chunk_key(shard), dir_fd=folder)
            finally:
                os.close(folder)
            if self.coarser is not None:
                self.coarser.clear(coarser_box(box, self.factor), check)
        except TargetError:
            raise
        except OSError as error:
            raise TargetError(f"cannot write {box} of {self.path}: {error}") from error

    def read(self, box: Box) -> NDArray[Any]:
        """Read the voxels of a box."""
        voxels: NDArray[Any] = self._array[(..., *box.slices)]  # type: ignore[assignment]  # zarr also types scalars here
        return voxels

    def downsample(self, voxels: NDArray[Any], factor: Zyx) -> NDArray[Any]:
        """Make voxels of the next coarser level; along (z, y, x), the last axes."""
        factors = (1,) * (voxels.ndim - 3) + factor
        return downsample_mode(voxels, factors) if self.is_labels else downsample_mean(voxels, factors)

    def coarser_agrees(self, box: Box, voxels: NDArray[Any]) -> bool:
        """Whether the coarser level holds what is made of the voxels of a box."""
        half = self.downsample(voxels, self.factor)
        return self.coarser is None or bool((self.coarser.read(coarser_box(box, self.factor)) == half).all())

    def shard_files(self, box: Box) -> list[TargetPath]:
        """Files of the shards of a box, in the order of their digests in a mark."""
        own = [self._shard_file(shard) for shard in self._shards(box)]
        return own + (self.coarser.shard_files(coarser_box(box, self.factor)) if self.coarser else [])

    def shard_folder(self, channel: int, z: int, y: int) -> TargetPath:
        """Folder of a row of shards along x, which are named by their number in it."""
        return self._shard_file((*([channel] if self.channels else []), z, y, 0)).parent

    def shard_folders(self, box: Box) -> set[TargetPath]:
        """Folders of the shards of a box."""
        return {file.parent for file in self.shard_files(box)}

    def remove_partials(self) -> None:
        """Delete shards that were not renamed, because their process died."""
        for part in self.parts:
            shutil.rmtree(_on_disk(part.folder) / _PARTIALS, ignore_errors=True)

    def _shard_files(self) -> ShardFiles:
        """The folder of shards that are being written; it is made in the target, and never makes a target."""
        if not self._files or not self._files[0].is_open:  # another run of this target has removed it
            self._files[:] = [ShardFiles(self._array, _on_disk(self.folder) / _PARTIALS)]
        return self._files[0]

    def _refuse_shared(self, box: Box) -> None:
        ends = zip(box.start, box.stop, self.shard, self._array.shape[-3:], strict=True)
        if any(a % s or (b % s and b != n) for a, b, s, n in ends):
            raise TargetError(f"box {box} is not made of whole shards {self.shard} of {self.path}")

    def _shards(self, box: Box) -> Iterator[tuple[int, ...]]:
        """Positions of the shards of a box, along all axes of the array, in units of shards."""
        channels = [range(n) for n in self.leading]
        spans = (range(a // s, -(-b // s)) for a, b, s in zip(box.start, box.stop, self.shard, strict=True))
        return product(*channels, *spans)

    def _shard_file(self, position: tuple[int, ...]) -> TargetPath:
        return self.folder / self._array.metadata.encode_chunk_key(position)


def _on_disk(path: TargetPath) -> Path:
    assert isinstance(path, Path)
    return path


def voxel_digest(voxels: NDArray[Any]) -> str:
    """Return the digest of voxels in C order, for a mark of the journal."""
    return digest_of(np.ascontiguousarray(voxels).data)
