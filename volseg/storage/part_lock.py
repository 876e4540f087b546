"""Locks of the parts of a run: several drivers write into one target, each its own blocks.

    0/.volseg/lock                  held by a driver of the whole run
    0/.volseg/lock-part-2-of-8      held by the driver of a part

A driver takes its own lock first and then looks at the others, so that of two which exclude each other at least one
sees the other.
"""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from volseg.errors import TargetError
from volseg.storage.lock import NoLocksError, in_use, is_at, is_locked, lock_file
from volseg.storage.object_path import ObjectPath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from volseg.blocks import Part
    from volseg.storage.object_path import TargetPath

_TURN_SECONDS = 0.5
"""Between attempts to get a turn."""
_NAME = re.compile(r"lock-part-(?P<number>\d+)-of-(?P<count>\d+)")


def parts_running(folder: TargetPath) -> list[tuple[int, int]]:
    """Number and count of the parts whose drivers write into a target.

    Args:
        folder: of the journal.
    """
    if isinstance(folder, ObjectPath):  # a lease has one owner
        return []
    return sorted(
        (int(match["number"]), int(match["count"]))
        for file in folder.glob("lock-part-*-of-*")
        if (match := _NAME.fullmatch(file.name)) and is_locked(file)
    )


def is_running(folder: TargetPath) -> bool:
    """Whether a driver, of the whole or of a part, writes into a target.

    Args:
        folder: of the journal.
    """
    return is_locked(folder / "lock") or bool(parts_running(folder))


@contextmanager
def lock_part(folder: TargetPath, part: Part) -> Iterator[None]:
    """Hold the lock of a part.

    Args:
        folder: of the journal.
        part: of the run.

    Raises:
        TargetError: another driver computes this part, the whole, or parts of another count; or the folder cannot be
            written.
    """
    target = folder.parent.parent
    if isinstance(folder, ObjectPath):
        raise TargetError(f"a target in an object store has one driver; give {target} to it without --part")
    try:
        file = lock_file(folder / f"lock-part-{part.number}-of-{part.count}", f"another driver computes part {part} of "
                         f"{target}; wait for it to end, or stop it")  # fmt: skip
    except TargetError:
        raise
    except OSError as error:
        raise TargetError(f"cannot write the journal in {folder}: {error.strerror}") from error
    with file:
        if is_locked(folder / "lock"):
            raise TargetError(in_use(target))
        for number, count in parts_running(folder):
            if count != part.count:
                raise TargetError(
                    f"part {number}/{count} of {target} is being computed, and {part} cuts it otherwise; give "
                    f"--part K/{count}, or wait for that one to end"
                )
        yield


@contextmanager
def creation_turn(target: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Wait until no driver of another part is about to create a target, and keep the others from it.

    Args:
        target: path of the target, which may not exist.
        waiting: called once if another driver has the turn.

    Raises:
        TargetError: the folder cannot be written, or has no locks.
    """
    path, said = target.with_name(f".{target.name}.parts"), False
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = lock_file(path, "")
        except NoLocksError:
            raise
        except TargetError:
            if not said:
                waiting()
                said = True
            time.sleep(_TURN_SECONDS)
            continue
        except OSError as error:
            raise TargetError(f"cannot write {path}: {error.strerror}; choose a writable folder") from error
        with file:
            if not is_at(path, file):  # the last owner has deleted it
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
