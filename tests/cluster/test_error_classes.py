"""The table of error classes: each row has an error that falls into it."""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from pathlib import Path

import pytest
from obstore.exceptions import GenericError, PermissionDeniedError

from volseg.cluster.attempt import Failure, attempted
from volseg.cluster.error_classes import DIED, LATE, OTHER, TABLE, Scope, classify
from volseg.errors import (
    BlockError,
    ConfigError,
    MemoryPlanError,
    ModelError,
    NotFiniteError,
    SourceError,
    SourceLostError,
    TargetError,
    TargetLostError,
    WorkerError,
)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def os_error(number: int) -> OSError:
    return OSError(number, "a reason")


class AcceleratorError(RuntimeError):
    """Named as torch's."""


EXAMPLES = [
    (caused(TargetError("cannot write"), os_error(errno.ENOSPC)), "disk full", Scope.RUN),
    (caused(TargetError("cannot write"), os_error(errno.EDQUOT)), "disk full", Scope.RUN),
    (caused(TargetError("cannot write"), OSError("No space left on device (os error 28)")), "disk full", Scope.RUN),
    (caused(TargetError("cannot write"), os_error(errno.EROFS)), "target not writable", Scope.RUN),
    (caused(SourceError("cannot read"), PermissionDeniedError("403")), "credentials refused", Scope.RUN),
    (TargetError("cannot write s3://b/k: there is no such bucket"), "bucket missing", Scope.RUN),
    (caused(TargetError("cannot write"), GenericError("503 Service Unavailable")), "store throttles", Scope.TRANSIENT),
    (caused(SourceError("cannot read"), GenericError("429 Too Many Requests")), "store throttles", Scope.TRANSIENT),
    (NotFiniteError("NaN"), "output not finite", Scope.BLOCK),
    (BlockError("NaN"), "output not finite", Scope.BLOCK),
    (TargetLostError("another run"), "target lost", Scope.WORKER),
    (caused(TargetError("cannot write"), os_error(errno.ENOENT)), "target lost", Scope.WORKER),
    (SourceLostError("gone"), "source lost", Scope.WORKER),
    (AcceleratorError("an illegal memory access"), "device fault", Scope.WORKER),
    (RuntimeError("CUDA error: unspecified launch failure"), "device fault", Scope.WORKER),
    (WorkerError("a kernel is at fault"), "wrong result", Scope.WORKER),
    (MemoryError(), "out of memory", Scope.WORKER),
    (MemoryPlanError("one tile does not fit"), "out of memory", Scope.WORKER),
    (caused(SourceError("cannot unpack"), os_error(errno.ENOSPC)), "local disk full", Scope.WORKER),
    (ModelError("not the model"), "model or device missing", Scope.WORKER),
    (ConfigError("no GPU"), "model or device missing", Scope.WORKER),
    (caused(SourceError("cannot read"), GenericError("HTTP 503")), "read or write failed", Scope.TRANSIENT),
    (ConnectionResetError(), "read or write failed", Scope.TRANSIENT),
    (TimeoutError(), "read or write failed", Scope.TRANSIENT),
    (IndexError("a bug"), "unexpected error", Scope.TRANSIENT),
]


@pytest.mark.parametrize(("error", "name", "scope"), EXAMPLES)
def test_an_error_has_a_class(error: Exception, name: str, scope: Scope) -> None:
    row = classify(error)
    assert (row.name, row.scope) == (name, scope)


def test_each_row_has_an_example() -> None:
    assert {id(classify(error)) for error, _, _ in EXAMPLES} == set(map(id, TABLE))
    assert TABLE[-1] is OTHER


def test_the_page_lists_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "predict.md").read_text()
    rows = re.findall(r"^\| ([a-z ]+) \| (run|block|worker|transient) \| (\d) \|$", page, re.MULTILINE)
    expected = [(row.name, row.scope.value, str(row.attempts)) for row in (*TABLE, DIED, LATE)]
    assert rows == list(dict.fromkeys(expected))


def test_an_attempt_carries_the_class_of_its_error() -> None:
    def fail(number: int) -> None:
        raise TargetError("cannot write") from os_error(errno.ENOSPC)

    result = attempted(7, fail, "here").result
    assert isinstance(result, Failure)
    assert replace(result, seconds=0.0) == Failure("cannot write", "disk full", Scope.RUN, 1)
