"""One attempt at one block, as a worker makes it and as the driver hears of it."""

from __future__ import annotations

import traceback
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from volseg.errors import BlockError, VolsegError
from volseg.pipeline import BlockReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed.

    Attributes:
        message: one line.
        again: whether another attempt could go better.
        trace: the worker's traceback; empty for errors that volseg raises on purpose.
        lost: whether the worker died.
    """

    message: str
    again: bool
    trace: str = ""
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of an attempt.

    Attributes:
        number: the block's.
        worker: who made it.
        result: a report, or why there is none.
    """

    number: int
    worker: str
    result: BlockReport | Failure


def attempted(number: int, compute: Callable[[int], BlockReport], worker: str) -> Attempt:
    """Do a block; an error comes back as a value, with the name of the worker that met it."""
    try:
        return Attempt(number, worker, compute(number))
    except BlockError as error:
        return Attempt(number, worker, Failure(str(error), again=False))
    except VolsegError as error:
        return Attempt(number, worker, Failure(str(error), again=True))
    except Exception as error:  # whatever it is, the run goes on and the driver is told
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        return Attempt(number, worker, Failure(message, again=True, trace=traceback.format_exc()))


def packed(attempt: Attempt) -> list[Any]:
    """An attempt as plain values, such as a message of Dask's can carry; the inverse of `unpacked`.

    >>> packed(Attempt(7, "tcp://node:1", Failure("a disk hiccup", again=True)))
    [7, 'tcp://node:1', False, 'a disk hiccup', True, '', False]
    """
    done = isinstance(attempt.result, BlockReport)
    return [attempt.number, attempt.worker, done, *astuple(attempt.result)]


def unpacked(values: Sequence[Any]) -> Attempt:
    """The attempt that was `packed`."""
    number, worker, done, *fields = values
    return Attempt(number, worker, BlockReport(*fields) if done else Failure(*fields))
