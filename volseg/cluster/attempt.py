"""One attempt at one block, on the worker and as reported to the driver."""

from __future__ import annotations

import time
import traceback
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from volseg.cluster.error_classes import OTHER, ErrorClass, Scope, classify
from volseg.errors import VolsegError, redact
from volseg.pipeline import BlockReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed.

    Attributes:
        message: one line.
        kind: name of the error's class.
        scope: what the error says something about.
        attempts: at the block, in all, if it fails so.
        traceback: of the worker; empty for errors that volseg raises on purpose.
        counts: whether it is an attempt; False for a block that was on a worker which was replaced.
        seconds: that the attempt took, if that is known.
    """

    message: str
    kind: str = OTHER.name
    scope: Scope = OTHER.scope
    attempts: int = OTHER.attempts
    traceback: str = ""
    counts: bool = True
    seconds: float = 0.0

    @classmethod
    def of(cls, error_class: ErrorClass, message: str, traceback: str = "", seconds: float = 0.0) -> Failure:
        """A failure of a class."""
        return cls(message, error_class.name, error_class.scope, error_class.attempts, traceback, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Result of one attempt at a block.

    Attributes:
        number: of the block.
        worker: that made the attempt.
        result: a report, or why there is none.
    """

    number: int
    worker: str
    result: BlockReport | Failure


def attempted(number: int, compute: Callable[[int], BlockReport], worker: str) -> Attempt:
    """Process a block; an error is returned as a value, with the name of its worker."""
    started = time.perf_counter()
    try:
        return Attempt(number, worker, compute(number))
    except VolsegError as error:
        return Attempt(number, worker, Failure.of(classify(error), str(error), seconds=time.perf_counter() - started))
    except Exception as error:  # any error of a block is reported to the driver, and the run continues
        message = redact(f"{type(error).__name__}: {error}".splitlines()[0])
        trace, seconds = redact(traceback.format_exc()), time.perf_counter() - started
        return Attempt(number, worker, Failure.of(classify(error), message, trace, seconds))


def pack(attempt: Attempt) -> list[Any]:
    """An attempt as plain values, for a Dask message; the inverse of `unpack`.

    >>> pack(Attempt(7, "tcp://node:1", Failure("a disk error")))
    [7, 'tcp://node:1', False, 'a disk error', 'unexpected error', 'transient', 3, '', True, 0.0]
    """
    succeeded = isinstance(attempt.result, BlockReport)
    fields = [str(field) if isinstance(field, Scope) else field for field in astuple(attempt.result)]
    return [attempt.number, attempt.worker, succeeded, *fields]


def unpack(values: Sequence[Any]) -> Attempt:
    """The attempt that was packed."""
    number, worker, succeeded, *fields = values
    if succeeded:
        return Attempt(number, worker, BlockReport(*fields))
    message, kind, scope, *others = fields
    return Attempt(number, worker, Failure(message, kind, Scope(scope), *others))
