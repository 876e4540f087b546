"""Classes of errors, as data: whether another attempt may help, where, and how often.

transient   another attempt may succeed, anywhere, after a while
block       no attempt can succeed: the block is given up
worker      another worker may succeed; one that fails in succession is replaced, then left out
run         no block can succeed: the run ends at once
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Scope(StrEnum):
    """What an error says something about."""

    TRANSIENT = "transient"
    """Nothing: another attempt may succeed, anywhere, after a while."""
    BLOCK = "block"
    """The block: no attempt can succeed."""
    WORKER = "worker"
    """The worker: another one may succeed. One on which block after block fails is replaced, then left out."""
    RUN = "run"
    """The run: no block can succeed, and it ends at once."""


@dataclass(frozen=True, slots=True)
class ErrorClass:
    """A row of the table; an error belongs to the first row of which all conditions hold.

    Attributes:
        name: for messages and records.
        scope: what such an error says something about.
        attempts: at a block that fails so, in all.
        raised: names of exception classes, one of which the error, its cause or one of their bases has.
        errnos: of an OSError among the error and its causes.
        text: parts of the message of the error or of a cause, one of which occurs.
    """

    name: str
    scope: Scope
    attempts: int = 3
    raised: tuple[str, ...] = ()
    errnos: tuple[int, ...] = ()
    text: tuple[str, ...] = ()


OTHER = ErrorClass("unexpected error", Scope.TRANSIENT)
DIED = ErrorClass("worker died", Scope.WORKER)
"""A worker ended amid a block; the driver reports it."""
LATE = ErrorClass("block too late", Scope.WORKER)
"""A block exceeded its deadline, and its worker was replaced; the driver reports it."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOST = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)
_THROTTLED = ("429 Too Many Requests", "503 Service Unavailable", "SlowDown", "TooManyRequests", "ServerBusy")
_OS_ERROR = "(os error {})"
"""How native code words an errno, without an OSError."""

TABLE = (
    ErrorClass("disk full", Scope.RUN, 1, ("TargetError",), _FULL),
    ErrorClass("disk full", Scope.RUN, 1, ("TargetError",), text=tuple(map(_OS_ERROR.format, _FULL))),
    ErrorClass("target not writable", Scope.RUN, 1, ("TargetError",), _REFUSED),
    ErrorClass("credentials refused", Scope.RUN, 1, ("UnauthenticatedError", "PermissionDeniedError")),
    ErrorClass("bucket missing", Scope.RUN, 1, ("TargetError",), text=("there is no such bucket",)),
    ErrorClass("store throttles", Scope.TRANSIENT, 8, text=_THROTTLED),
    ErrorClass("output not finite", Scope.BLOCK, 1, ("BlockError",)),
    ErrorClass("target lost", Scope.WORKER, 3, ("TargetLostError",)),
    ErrorClass("target lost", Scope.WORKER, 3, ("TargetError",), _LOST),
    ErrorClass("source lost", Scope.WORKER, 3, ("SourceLostError",)),
    ErrorClass("device fault", Scope.WORKER, 3, ("AcceleratorError",)),
    ErrorClass("device fault", Scope.WORKER, 3, ("RuntimeError",), text=("CUDA error", "cuDNN error", "CUBLAS_STATUS")),
    ErrorClass("wrong result", Scope.WORKER, 3, ("WorkerError",)),
    ErrorClass("out of memory", Scope.WORKER, 3, ("MemoryError", "OutOfMemoryError")),
    ErrorClass("local disk full", Scope.WORKER, 3, errnos=_FULL),
    ErrorClass("model or device missing", Scope.WORKER, 3, ("ModelError", "ConfigError")),
    ErrorClass("read or write failed", Scope.TRANSIENT, 4, ("OSError", "BaseError", "TimeoutError")),
    OTHER,
)
"""In the order in which an error is compared; `OTHER` takes what is left."""


def classify(error: BaseException) -> ErrorClass:
    """The class of an error.

    >>> classify(MemoryError()).name, classify(ZeroDivisionError()).name
    ('out of memory', 'unexpected error')
    >>> classify(ConnectionResetError(104, "reset")).scope.value
    'transient'
    """
    chain = tuple(_chain(error))
    names = {base.__name__ for link in chain for base in type(link).__mro__}
    numbers = {link.errno for link in chain if isinstance(link, OSError)}
    texts = [str(link) for link in chain]
    return next(row for row in TABLE if _matches(row, names, numbers, texts))


def _matches(row: ErrorClass, names: set[str], numbers: set[int | None], texts: list[str]) -> bool:
    return (
        (not row.raised or not names.isdisjoint(row.raised))
        and (not row.errnos or not numbers.isdisjoint(row.errnos))
        and (not row.text or any(part in text for part in row.text for text in texts))
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
