"""One attempt at one block, on the worker and as reported to the driver."""

from __future__ import annotations

import traceback
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from volseg.errors import BlockError, VolsegError, redact
from volseg.pipeline import BlockReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed.

    Attributes:
        message: one line.
        retry: whether another attempt may succeed.
        traceback: of the worker; empty for errors that volseg raises on purpose.
        worker_died: whether the worker died.
    """

    message: str
    retry: bool
    traceback: str = ""
    worker_died: bool = False


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
    try:
        return Attempt(number, worker, compute(number))
    except BlockError as error:
        return Attempt(number, worker, Failure(str(error), retry=False))
    except VolsegError as error:
        return Attempt(number, worker, Failure(str(error), retry=True))
    except Exception as error:  # any error of a block is reported to the driver, and the run continues
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        return Attempt(number, worker, Failure(redact(message), retry=True, traceback=redact(traceback.format_exc())))


def pack(attempt: Attempt) -> list[Any]:
    """An attempt as plain values, for a Dask message; the inverse of `unpack`.

    >>> pack(Attempt(7, "tcp://node:1", Failure("a disk error", retry=True)))
    [7, 'tcp://node:1', False, 'a disk error', True, '', False]
    """
    succeeded = isinstance(attempt.result, BlockReport)
    return [attempt.number, attempt.worker, succeeded, *astuple(attempt.result)]


def unpack(values: Sequence[Any]) -> Attempt:
    """The attempt that was packed."""
    number, worker, succeeded, *fields = values
    return Attempt(number, worker, BlockReport(*fields) if succeeded else Failure(*fields))
