"""Locks of files, which the system releases when their process ends."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from volseg.errors import TargetError
from volseg.storage.lease import is_leased
from volseg.storage.object_path import ObjectPath

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from volseg.storage.object_path import TargetPath


_PAUSES = (0.01, 0.05, 0.2)
"""Seconds between attempts to lock: a look at a lock holds it for a moment."""


class NoLocksError(TargetError):
    """A file system without locks."""


def lock_file(path: Path, held: str) -> TextIO:
    """Open and lock a file, until it is closed or the process ends.

    Args:
        path: of the file, created if it is missing.
        held: message if another process holds the lock.

    Raises:
        TargetError: the lock is held.
        NoLocksError: the system or the file system has no locks.
        OSError: the file cannot be created.
    """
    file = path.open("a+")
    try:
        _lock_exclusively(file)
    except ImportError as error:
        file.close()
        raise NoLocksError(f"cannot lock {path}: no fcntl; run volseg on Linux or macOS") from error
    except BlockingIOError:
        file.close()
        raise TargetError(held) from None
    except OSError as error:
        file.close()
        raise NoLocksError(
            f"cannot lock {path}: {error.strerror}; mount the file system with locks (Lustre: -o flock) or write to "
            "another one"
        ) from error
    return file


def _lock_exclusively(file: TextIO) -> None:
    """Lock a file, whoever looks at its lock meanwhile.

    Raises:
        BlockingIOError: it is locked for longer than a look takes.
    """
    import fcntl  # noqa: PLC0415 - Windows has none

    for pause in (*_PAUSES, None):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if pause is None:
                raise
            time.sleep(pause)
        else:
            return


def is_locked(path: TargetPath) -> bool:
    """Whether a process holds the lock of a file; False if there is no file, or there are no locks."""
    if isinstance(path, ObjectPath):
        return is_leased(path.parent)
    try:
        import fcntl  # noqa: PLC0415 - Windows has none

        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, ImportError):
        return False
    return False


def is_at(path: Path, file: TextIO) -> bool:
    """Whether an open file is the one at a path."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False


@contextmanager
def locked(path: Path, held: str) -> Iterator[None]:
    """Hold the lock of a file; raises as `lock_file`."""
    with lock_file(path, held):
        yield


def in_use(target: TargetPath) -> str:
    """Why a target that a run writes into is not touched."""
    return f"another run is writing into {target}; wait for it to end, or stop it"
