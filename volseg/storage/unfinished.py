"""Conversions that are not finished: beside the path of their volume, which appears there when it is complete.

.NAME.converting/
lock                    locked while a driver writes
record.json             the conversion record; written when the volume has its metadata
journal-0001.marks      marks of the blocks that are done; failures and the census of chunks lie beside it
publishing              inode of the volume, from the moment before it is renamed
NAME                    the volume
old                     the one that is replaced, for a moment, where the file system has no exchange

In object stores they lie in their place: see `object_conversion`.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, overload

from volseg.errors import TargetError, TargetLostError
from volseg.storage.checked_record import reason_of
from volseg.storage.conversion_record import CONVERSION_KEY, ConversionRecord
from volseg.storage.durable import sync_folder, write_synced
from volseg.storage.journal import read_marks
from volseg.storage.lease_watch import lease_watch
from volseg.storage.lock import NoLocksError, in_use, is_locked, lock_file
from volseg.storage.metadata_file import read_metadata
from volseg.storage.object_conversion import (
    begin_object,
    finish_object,
    held_object,
    object_work_folder,
    read_object_record,
)
from volseg.storage.object_path import ObjectPath
from volseg.storage.publish import publish
from volseg.text import parse_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from volseg.storage.object_path import TargetPath

_RECORD, _PUBLISHING = "record.json", "publishing"


@overload
def work_folder(path: Path) -> Path: ...
@overload
def work_folder(path: TargetPath) -> TargetPath: ...
def work_folder(path: TargetPath) -> TargetPath:
    """Folder of the unfinished conversion to a path."""
    if isinstance(path, ObjectPath):
        return object_work_folder(path)
    return path.with_name(f".{path.name}.converting")


def unfinished_volume(path: TargetPath) -> TargetPath:
    """Where the volume of an unfinished conversion to a path lies."""
    return path if isinstance(path, ObjectPath) else work_folder(path) / path.name


def unfinished(path: TargetPath) -> tuple[ConversionRecord, bool] | None:
    """The record of the unfinished conversion to a path, and whether it replaces what is there; None without one.

    Raises:
        TargetError: the record cannot be read.
    """
    try:
        document = read_object_record(path) if isinstance(path, ObjectPath) else _read_record(path)
    except TargetError:
        raise
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if document is None:
        return None
    try:
        return ConversionRecord.from_attributes(document[CONVERSION_KEY]), bool(document["overwrite"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_record(path: Path) -> dict[str, Any] | None:
    folder = work_folder(path)
    if not (folder / path.name).exists() or _is_published(folder, path):
        return None
    try:
        return parse_object(read_metadata(folder / _RECORD))
    except FileNotFoundError:
        return None


def _is_published(folder: Path, path: Path) -> bool:
    """Whether the volume was exchanged for the one that it replaces, and the folder not yet deleted."""
    with suppress(FileNotFoundError):
        return (folder / _PUBLISHING).read_text() != str((folder / path.name).stat().st_ino)
    return False


def _damaged(path: TargetPath, error: Exception) -> TargetError:
    return TargetError(
        f"the record of the unfinished conversion in {work_folder(path)} cannot be read ({reason_of(error)}); "
        "start again with --overwrite"
    )


def refuse_in_use(path: Path) -> None:
    """Refuse a path to which another process is converting.

    Raises:
        TargetError: it is.
    """
    if is_locked(work_folder(path) / "lock"):
        raise TargetError(in_use(path))


def confirm_owner(path: TargetPath, digest: str) -> None:
    """Refuse a write into an unfinished conversion that is another's; in an object store the lease tells.

    Raises:
        TargetLostError: it is.
        TargetError: the lease was not renewed.
    """
    if isinstance(path, ObjectPath):
        lease_watch(path, digest).confirm()
    else:
        refuse_other_owner(path, digest)


def refuse_other_owner(path: TargetPath, digest: str) -> None:
    """Refuse to write into an unfinished conversion that is gone, or another one.

    Raises:
        TargetLostError: it is.
    """
    try:
        found = unfinished(path)
    except TargetError as error:
        raise TargetLostError(f"{error}") from error
    if found is None or found[0].digest != digest:
        raise TargetLostError(f"the conversion of {path} was ended or replaced by another one; this one ends")


@contextmanager
def held(path: TargetPath) -> Iterator[TargetPath]:
    """Hold the folder of the conversion to a path; it is deleted at the end if the conversion has not done a block.

    Raises:
        TargetError: another conversion holds it, or it cannot be made.
    """
    with held_object(path) if isinstance(path, ObjectPath) else _held_on_disk(path) as folder:
        yield folder


@contextmanager
def _held_on_disk(path: Path) -> Iterator[Path]:
    folder = work_folder(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            folder.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # another one ended in this moment
                file = lock_file(folder / "lock", in_use(path))
                if (folder / "lock").exists() and os.path.samestat(os.fstat(file.fileno()), (folder / "lock").stat()):
                    break
                file.close()
    except (NoLocksError, TargetError):
        raise
    except OSError as error:
        raise TargetError(f"cannot create {path}: {error.strerror or error}; choose a writable folder") from error
    with file:
        if (folder / "old").exists() and not path.exists():  # a replacement was interrupted
            (folder / "old").rename(path)
        try:
            yield folder
        finally:
            if not _is_begun(folder, path):
                shutil.rmtree(folder, ignore_errors=True)


def _is_begun(folder: Path, path: Path) -> bool:
    """Whether there is something to resume."""
    with suppress(TargetError, OSError):
        return unfinished(path) is not None and any(True for _ in read_marks(folder))
    return True


def begin(path: TargetPath, record: ConversionRecord, overwrite: bool, create: Callable[[Path], None]) -> None:
    """Begin a conversion anew in a held folder: create the volume, then write the record.

    Args:
        path: of the volume in the end.
        record: of the conversion.
        overwrite: whether it replaces a volume at the path.
        create: creates the empty volume at a path.

    Raises:
        TargetError: something cannot be written.
    """
    document = {CONVERSION_KEY: record.to_attributes(), "overwrite": overwrite}
    if isinstance(path, ObjectPath):
        begin_object(path, document, overwrite, create)
        return
    folder = work_folder(path)
    try:
        (folder / _RECORD).unlink(missing_ok=True)
        for entry in folder.iterdir():
            if entry.name != "lock":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        create(folder / path.name)
        write_synced(folder / f"{_RECORD}.partial", json.dumps(document, indent=2).encode())
        (folder / f"{_RECORD}.partial").rename(folder / _RECORD)
        sync_folder(folder)
    except TargetError:
        raise
    except OSError as error:
        raise TargetError(f"cannot create {path}: {error.strerror or error}; choose a writable folder") from error


def finish(path: TargetPath, *, overwrite: bool, refuse: Callable[[Path], None]) -> None:
    """Give the complete volume of a held folder its name, and delete the folder.

    Args:
        path: of the volume.
        overwrite: replace what is there.
        refuse: raises if what is there must not be replaced.

    Raises:
        TargetError: it cannot be renamed.
    """
    if isinstance(path, ObjectPath):
        finish_object(path)
        return
    folder = work_folder(path)
    (folder / _PUBLISHING).write_text(str((folder / path.name).stat().st_ino))
    publish(folder, path, overwrite=overwrite, refuse=refuse)
    (folder / _RECORD).unlink(missing_ok=True)  # first: without it the rest is nothing to resume
    shutil.rmtree(folder, ignore_errors=True)
