"""Conversions in object stores, where nothing is renamed: in their place, without the `zarr.json` that shows them.

    0/.volseg/lease.json    held while a driver writes
    0/.volseg/record.json   the conversion record, and the `zarr.json` to put at the end; put after the other metadata
    0/.volseg/journal-..    marks of the blocks that are done; failures and the census of chunks lie beside them

At the end the lease alone stays, given back: it tells the next start that what lies there is volseg's.
"""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from volseg.errors import TargetError, TargetLostError
from volseg.storage.journal import read_marks
from volseg.storage.lease import LEASE, held_lease, hold_lease
from volseg.storage.object_target import CONVERSION_RECORD, claim_object, clear_place, delete_below, has_target
from volseg.text import parse_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from volseg.storage.lease import Lease
    from volseg.storage.object_path import ObjectPath

_METADATA, _GROUP = "zarr.json", "group"


def object_work_folder(path: ObjectPath) -> ObjectPath:
    """Folder of the lease, the record and the journal of a conversion."""
    return path / "0" / ".volseg"


def read_object_record(path: ObjectPath) -> dict[str, Any] | None:
    """The document of the unfinished conversion at a place; None without one, or if it is complete.

    Raises:
        FileNotFoundError, ValueError: it cannot be read.
    """
    file = object_work_folder(path) / CONVERSION_RECORD
    found = file.store.read(file.key)
    return None if found is None or has_target(path) else parse_object(found.content)


@contextmanager
def held_object(path: ObjectPath) -> Iterator[ObjectPath]:
    """Hold the lease of a conversion; at the end all is deleted that is neither the volume nor needed to resume.

    Raises:
        TargetError: another start holds the lease.
    """
    folder = object_work_folder(path)
    with hold_lease(folder) as lease:
        try:
            yield folder
        finally:
            with suppress(TargetError):  # the next start does it
                _tidy(path, lease)


def _tidy(path: ObjectPath, lease: Lease) -> None:
    """Delete what a conversion that is complete, or has not done a block, leaves."""
    folder = object_work_folder(path)
    if not (folder / CONVERSION_RECORD).is_file():
        return
    is_complete = has_target(path)
    if not is_complete and any(True for _ in read_marks(folder)):
        return
    lease.confirm()
    path.store.delete([(folder / CONVERSION_RECORD).key])  # first: without it the rest is nothing to resume
    below = folder if is_complete else path
    delete_below(below, lease, keep={(folder / LEASE).key})


def begin_object(path: ObjectPath, document: dict[str, Any], overwrite: bool, create: Callable[[Path], None]) -> None:
    """Begin a conversion anew, under its lease.

    Args:
        path: of the volume.
        document: with the conversion record.
        overwrite: replace what is there: it is gone from this moment.
        create: creates the empty volume at a path on this machine.

    Raises:
        TargetError: the place is taken, or cannot be written.
    """
    folder, lease = object_work_folder(path), _lease(path)
    claim_object(path, overwrite=overwrite, resume=None)
    lease.await_old_writes()
    clear_place(path, lease)
    with TemporaryDirectory(prefix="volseg-metadata-") as scratch:
        new = Path(scratch) / "new"
        create(new)
        files = {str(file.relative_to(new)): file.read_bytes() for file in sorted(new.rglob("*")) if file.is_file()}
    group = files.pop(_METADATA).decode()
    for name, content in files.items():
        lease.confirm()
        (path / name).write_bytes(content)
    lease.confirm()
    (folder / CONVERSION_RECORD).write_bytes(json.dumps({**document, _GROUP: group}, indent=2).encode())


def finish_object(path: ObjectPath) -> None:
    """Show the complete volume: put its `zarr.json`.

    Raises:
        TargetError: another one appeared there, or it cannot be written.
    """
    document, lease = read_object_record(path), _lease(path)
    lease.confirm(lease.times.write)
    if document is None or path.store.create((path / _METADATA).key, document[_GROUP].encode()) is None:
        raise TargetError(f"{path} appeared meanwhile and is kept; give --overwrite to replace it, or another place")


def _lease(path: ObjectPath) -> Lease:
    lease = held_lease(object_work_folder(path))
    if lease is None:
        raise TargetLostError(f"the lease of {path} is not held")
    return lease
