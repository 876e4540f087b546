"""How a new Zarr appears under its name: whole, and without replacing what is not to be replaced.

It is made in a staging folder beside its path, on the same file system:

    .NAME@HOST.PID.TOKEN.staging/
        lock          locked as long as its owner lives
        NAME          the new Zarr; after an exchange the one that it replaced
        old           the replaced one, where the file system has no exchange

An existing Zarr is replaced by one exchange (Linux, `renameat2`). Elsewhere it takes two renames; if the owner dies
between them, `settle` moves the old one back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import socket
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from volseg.errors import TargetError
from volseg.storage.durable import sync_file, sync_folder, sync_tree
from volseg.storage.lock import NoLocksError, in_use, locked
from volseg.storage.part_lock import parts_running
from volseg.storage.paths import local_output, refuse_other_content, refuse_unwritable
from volseg.system import held_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_SUFFIX = ".staging"
_OWNER = re.compile(r"(?P<host>[^@]+)\.(?P<pid>\d+)\.[0-9a-f]{8}")


def claim_target(location: str | Path, *, overwrite: bool, resume: bool | None = None) -> Path:
    """Path of a target that may be created, replaced or resumed; without symbolic links, as those of the inputs.

    An interrupted replacement at the path is undone.

    Args:
        location: as the user named it.
        overwrite: an existing Zarr may be replaced.
        resume: an existing target may be continued; None for a command that cannot.

    Raises:
        TargetError: a URL, a path that exists and may not be replaced, into which a run is writing, or which cannot be
            written.
    """
    path = local_output(location)
    settle(path)
    if path.exists() and not (overwrite or resume):
        ways = "--overwrite to replace it" if resume is None else "--resume to finish it, --overwrite to replace it"
        raise TargetError(f"target {path} exists already; give {ways}, or choose another path")
    if overwrite:
        refuse_other_content(path)
        with _unused(path):
            pass
    refuse_unwritable(path)
    return path


@contextmanager
def staged(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A path for a new Zarr, which is renamed to `path` at the end of the block; on an error nothing changes.

    Args:
        path: under which it appears.
        overwrite: replace a Zarr that is there.

    Raises:
        TargetError: the path cannot be written, another Zarr appeared there and is not to be replaced, or a run is
            writing into the one to be replaced.
    """
    path = Path(os.path.realpath(path))
    settle(path)
    folder = path.with_name(f".{path.name}@{socket.gethostname()}.{os.getpid()}.{uuid4().hex[:8]}{_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except OSError as error:
        raise TargetError(f"cannot create {path}: {error.strerror or error}; choose a writable folder") from error
    try:
        with ExitStack() as stack:
            with suppress(NoLocksError):  # then the process number alone says whether the owner lives
                stack.enter_context(locked(folder / "lock", f"{folder} is in use"))
            yield folder / path.name
            publish(folder, path, overwrite=overwrite)
    finally:
        with held_signals(), suppress(OSError):  # then, or after a kill, the folder is left to `settle`
            _close(folder, path)


def publish(
    folder: Path, path: Path, *, overwrite: bool, refuse: Callable[[Path], None] = refuse_other_content
) -> None:
    """Sync the new volume of a staging folder and rename it to its path; what is there moves into the folder.

    Args:
        folder: holds the volume, under the name of the path.
        path: under which it appears.
        overwrite: replace what is there.
        refuse: raises if what is there must not be replaced.

    Raises:
        TargetError: the path is taken, or cannot be written.
    """
    try:
        new = folder / path.name
        sync_file(new) if new.is_file() else sync_tree(new)
        with held_signals():
            _publish(folder, path, overwrite=overwrite, refuse=refuse)
            sync_folder(path.parent)
    except TargetError:
        raise
    except OSError as error:
        raise TargetError(f"cannot replace {path}: {error.strerror or error}") from error


def _publish(folder: Path, path: Path, *, overwrite: bool, refuse: Callable[[Path], None]) -> None:
    """Rename the new volume to its path; a volume there moves into the staging folder."""
    new = folder / path.name
    try:
        if new.is_file():
            _link(new, path)
        else:
            new.rename(path)  # fails on anything but an empty folder: nothing is replaced
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise
    else:
        return
    if not overwrite:
        raise TargetError(f"{path} appeared meanwhile and is kept; give --overwrite to replace it, or another path")
    refuse(path)
    with _unused(path):
        if new.is_file() and path.is_file():
            new.replace(path)
        else:
            _replace(new, path, folder / "old")


def _link(new: Path, path: Path) -> None:
    """Rename a file to a path that is free; a rename alone would replace what is there.

    Raises:
        FileExistsError: it is not free.
    """
    if path.exists() and path.samefile(new):  # an earlier rename was interrupted
        new.unlink()
        return
    try:
        os.link(new, path)
    except OSError as error:
        if error.errno in _OCCUPIED or path.exists():
            raise
        new.rename(path)  # the file system has no links
    else:
        new.unlink()


@contextmanager
def _unused(path: Path) -> Iterator[None]:
    """Hold the lock of a target's journal, if it has one: no run is writing into it, and none begins."""
    folder = path / "0" / ".volseg"
    lock = folder / "lock"
    with locked(lock, in_use(path)) if lock.is_file() else nullcontext():
        if parts_running(folder):
            raise TargetError(in_use(path))
        yield


def _replace(new: Path, path: Path, old: Path) -> None:
    """Exchange two Zarrs; where that does not exist, move the old one aside first."""
    if exchange(new, path):
        return
    path.rename(old)
    new.rename(path)


def _close(folder: Path, path: Path) -> None:
    """Delete a staging folder, when what it holds of an interrupted replacement is back at its path."""
    if (folder / "old").exists() and not path.exists():
        (folder / "old").rename(path)
        sync_folder(path.parent)
    shutil.rmtree(folder, ignore_errors=True)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two paths in one step; False if the system or the file system cannot.

    Raises:
        OSError: a path is missing, or may not be changed.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(second))


def settle(path: Path) -> None:
    """Undo a replacement of a path whose owner died within it, and delete the staging folders of dead owners.

    Raises:
        TargetError: the owner of an unfinished replacement is not proven dead.
    """
    if not path.parent.is_dir():
        return
    with os.scandir(path.parent) as entries:
        names = [e.name for e in entries if e.name.startswith(f".{path.name}@") and e.name.endswith(_SUFFIX)]
    for name in names:
        folder = path.with_name(name)
        with suppress(OSError), _of_dead_owner(folder, path.name) as dead:  # a read-only folder: it stays
            if dead:
                _close(folder, path)
        if (folder / "old").exists() and not path.exists():
            raise TargetError(
                f"{path} is being replaced by the process that {folder} names; wait for it, or if it is dead, move "
                f"{folder / 'old'} back to {path}"
            )


@contextmanager
def _of_dead_owner(folder: Path, name: str) -> Iterator[bool]:
    """Whether the owner of a staging folder is proven dead: a process of this host that neither runs nor holds it."""
    owner = _OWNER.fullmatch(folder.name.removeprefix(f".{name}@").removesuffix(_SUFFIX))
    if owner is None or owner["host"] != socket.gethostname():
        yield False
        return
    pid = int(owner["pid"])
    # In containers a dead owner may have had the number of this very process, which holds no lock yet.
    may_run = _is_running(pid) and not (pid == os.getpid() and (folder / "lock").is_file())
    with ExitStack() as stack:
        if not may_run and (folder / "lock").is_file():
            try:
                stack.enter_context(locked(folder / "lock", "in use"))
            except NoLocksError:
                may_run = pid == os.getpid()
            except TargetError:
                may_run = True
        yield not may_run


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
