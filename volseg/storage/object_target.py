"""Targets in object stores: created by one put of their `zarr.json`, and written by one put for each shard."""

from __future__ import annotations

import threading
import warnings
import weakref
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.storage import MemoryStore, ObjectStore

from volseg.blocks import coarser_box
from volseg.errors import TargetError
from volseg.storage.conditions import TEST
from volseg.storage.lease import LEASE, hold_lease
from volseg.storage.marks import Written, digest_of, joint_digest
from volseg.storage.object_client import reading_client
from volseg.storage.object_path import ObjectPath
from volseg.storage.shards import NATIVE, ShardFiles
from volseg.storage.target import Target, voxel_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from volseg.blocks import Box
    from volseg.storage.lease import Lease
    from volseg.storage.object_path import TargetPath

CONVERSION_RECORD = "record.json"
"""Of an unfinished conversion, in the folder of the journal."""
_METADATA = "zarr.json"
_opening = threading.Lock()
_DELETED = 1000
"""Objects that are deleted in one request."""


class ObjectTarget(Target):
    """A level of a volume in an object store. Shards are encoded by the same code as those on a disk."""

    def write(self, box: Box, voxels: NDArray[Any], check: Callable[[], object] = lambda: None) -> Written:
        """As `Target.write`; `check` is called before each put, which fails if it lands over another run's shard."""
        self._refuse_shared(box)
        stored = list(self._encoded(box, voxels))
        for path, content in stored:
            path.store.put_over(path.key, content, check)
        digests = [digest_of(content) for _, content in stored]
        return Written(voxel_digest(voxels), sum(len(content) for _, content in stored), joint_digest(digests))

    def _encoded(self, box: Box, voxels: NDArray[Any]) -> Iterator[tuple[ObjectPath, bytes]]:
        """The shards of a box, and of the coarser level's, in the order of their digests in a mark."""
        for shard in self._shards(box):
            partial = self._shard_files().write(np.ascontiguousarray(self._part(shard, box, voxels)))
            try:
                path = self._shard_file(shard)
                assert isinstance(path, ObjectPath)
                yield path, partial.read_bytes()
            finally:
                partial.unlink(missing_ok=True)
        if isinstance(self.coarser, ObjectTarget):
            half = self.downsample(voxels, self.factor)
            yield from self.coarser._encoded(coarser_box(box, self.factor), half)

    def clear(self, box: Box, check: Callable[[], object] = lambda: None) -> None:
        """As `Target.clear`."""
        self._refuse_shared(box)
        paths = [path for path in self.shard_files(box) if isinstance(path, ObjectPath)]
        there = [path.key for path in paths if path.is_file()]
        if there:
            check()
            paths[0].store.delete(there)

    def remove_partials(self) -> None:
        """Do nothing: no shard is half-written."""

    def _shard_files(self) -> ShardFiles:
        """The folder on this machine in which shards are encoded."""
        with _opening:  # of two folders one would be deleted while a thread writes into it
            if not self._files:
                folder = TemporaryDirectory(prefix="volseg-shards-")
                files = ShardFiles(self._array, Path(folder.name))
                weakref.finalize(files, folder.cleanup)
                self._files[:] = [files]
            return self._files[0]


def open_target(path: TargetPath, level: str = "0") -> Target:
    """Open a level of a target to write more blocks; without the coarser one.

    Raises:
        TargetError: there is no target.
    """
    try:
        if isinstance(path, ObjectPath):
            store = ObjectStore(reading_client(path.root))  # shards are put by `ObjectTarget`
            return ObjectTarget(path, _ordered(zarr.open_array(store, path=(path / level).key, mode="r+")), level)
        # zarrs reads in two thirds of the CPU time, but not every Zarr 2. The pipeline is read when an array is made.
        pipeline = NATIVE if (path / level / _METADATA).is_file() else {}
        with zarr.config.set(pipeline), warnings.catch_warnings():
            # For a codec that it does not support zarrs warns and uses zarr's own pipeline.
            warnings.filterwarnings("ignore", message="Array is unsupported by ZarrsCodecPipeline")
            return Target(path, _ordered(zarr.open_array(path / level, mode="r+")), level)
    except Exception as error:  # each field of the metadata raises errors of its own
        raise TargetError(
            f"{path} is not a target of volseg: {error}; `volseg verify` tells what was changed"
        ) from error


def _ordered(array: zarr.Array[Any]) -> zarr.Array[Any]:
    return array.with_config({"write_empty_chunks": True, "order": "C"})


def has_target(path: ObjectPath) -> bool:
    """Whether a Zarr is at a place of an object store: what a creation left that did not end is none."""
    return any((path / name).is_file() for name in (_METADATA, ".zgroup", ".zarray"))


def delete_objects(path: ObjectPath) -> None:
    """Delete all objects below a path.

    Raises:
        TargetError: the store refused.
    """
    keys = [entry.key for entry in path.store.below(path.key)]
    for start in range(0, len(keys), _DELETED):
        path.store.delete(keys[start : start + _DELETED])


def claim_object(path: ObjectPath, *, overwrite: bool, resume: bool | None) -> ObjectPath:
    """A place that is free, or may be replaced or resumed.

    Raises:
        TargetError: it is not, or it holds something else.
    """
    if not path.key:
        raise TargetError(f"target {path} is a whole bucket; name a place in it, such as {path.root}/membrane.zarr")
    exists = has_target(path)
    if exists and not (overwrite or resume):
        ways = "--overwrite to replace it" if resume is None else "--resume to finish it, --overwrite to replace it"
        raise TargetError(f"target {path} exists already; give {ways}, or choose another place")
    folder = path / "0" / ".volseg"
    is_ours = (folder / LEASE).is_file()
    if is_ours and not (exists or overwrite or resume) and (folder / CONVERSION_RECORD).is_file():
        raise TargetError(
            f"an unfinished conversion to {path} lies there; finish it with `volseg convert --resume`, or give "
            "--overwrite to start again"
        )
    if exists and overwrite and not is_ours:
        raise TargetError(f"{path} was not written by a run of volseg, so --overwrite does not replace it; delete it")
    if not exists and not is_ours and not all(_is_of_a_test(path, entry.key) for entry in path.store.below(path.key)):
        raise TargetError(f"target {path} holds other objects; choose another place")
    return path


def _is_of_a_test(path: ObjectPath, key: str) -> bool:
    """Whether an object is of the test of a store's conditions, by a start that was killed within it."""
    return key.startswith(f"{(path / '0' / '.volseg').key}/{TEST}")


def clear_place(path: ObjectPath, lease: Lease) -> None:
    """Delete what is at a place whose lease is held, first what shows that a volume is there."""
    folder = path / "0" / ".volseg"
    for shown in (path / _METADATA, folder / CONVERSION_RECORD):
        if shown.is_file():
            lease.confirm()
            path.store.delete([shown.key])
    delete_below(path, lease, keep={(folder / LEASE).key, (folder / f"epoch-{lease.epoch:06d}.json").key})


def delete_below(path: ObjectPath, lease: Lease, keep: set[str]) -> None:
    """Delete the objects below a key, but for some."""
    old = [entry.key for entry in path.store.below(path.key) if entry.key not in keep]
    for start in range(0, len(old), _DELETED):
        lease.confirm()
        path.store.delete(old[start : start + _DELETED])


@contextmanager
def new_object_target(
    path: ObjectPath, create: Callable[[MemoryStore], None], *, overwrite: bool = False
) -> Iterator[Target]:
    """Create a target under its lease; its `zarr.json` is deleted first and put last.

    Args:
        path: of the new group.
        create: writes its metadata into a store.
        overwrite: replace what is there.

    Raises:
        TargetError: the place is taken, or another run holds the lease.
    """
    fresh: dict[str, Any] = {}
    create(MemoryStore(fresh))
    content = {key: bytes(value.to_bytes()) for key, value in fresh.items()}
    folder = path / "0" / ".volseg"
    with hold_lease(folder) as lease:
        claim_object(path, overwrite=overwrite, resume=None)
        lease.await_old_writes()
        clear_place(path, lease)
        for key in sorted(content, key=lambda key: -key.count("/")):
            lease.confirm()
            if key != _METADATA:
                (path / key).write_bytes(content[key])
        if path.store.create((path / _METADATA).key, content[_METADATA]) is None:
            raise TargetError(f"{path} appeared meanwhile and is kept; choose another place")
        yield open_target(path)
