"""Requests to object stores that are repeated: when, how often, and how many of them this process has repeated."""

from __future__ import annotations

import random
import re
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from obstore.exceptions import AlreadyExistsError, GenericError, PreconditionError

from volseg.storage import object_client

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_FIRST_PAUSE, _MAX_PAUSE = 0.1, 5.0
_PASSING = re.compile(r"status code: (408|429|5\d\d)\b|HTTP error: ")
_CONFLICT = re.compile(r"<Code>(ConditionalRequestConflict|OperationAborted)</Code>")
"""What S3 says of two conditional writes at a time, of which neither was judged."""


class Repeats:
    """Counts repeated requests of this process."""

    def __init__(self) -> None:
        self._lock, self._count = threading.Lock(), 0

    def add(self) -> None:
        """Count one."""
        with self._lock:
            self._count += 1

    def take(self) -> int:
        """The count since the last call."""
        with self._lock:
            taken, self._count = self._count, 0
            return taken


REPEATS = Repeats()


def repeated(act: Callable[[], _T]) -> _T:
    """Do a request, and again after growing pauses while the store is busy, fails or does not answer.

    One request takes half of `WRITE_SECONDS` at most, and none begins in the second half.
    """
    began, pause = time.monotonic(), _FIRST_PAUSE
    while True:
        try:
            return act()
        except (GenericError, AlreadyExistsError, PreconditionError) as error:
            if not _is_passing(error) or time.monotonic() + pause - began > object_client.WRITE_SECONDS / 2:
                raise
        REPEATS.add()
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, _MAX_PAUSE)


def _is_passing(error: Exception) -> bool:
    pattern = _PASSING if isinstance(error, GenericError) else _CONFLICT
    return pattern.search(str(error)) is not None
