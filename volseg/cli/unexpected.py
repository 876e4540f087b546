"""Errors that no check foresaw: one line, and a log file with the traceback."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.errors import redact
from volseg.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_TEXT = 300


def traceback_text(error: BaseException) -> str:
    """The traceback of an error, without credentials."""
    return redact("".join(traceback.format_exception(error)))


def describe_unexpected(error: Exception) -> str:
    """Write the log of an error, and describe it in one line."""
    reason = redact(" ".join(f"{type(error).__name__}: {error}".split())).removesuffix(":")
    reason = "".join(letter if letter.isprintable() else "?" for letter in reason)
    short = reason if len(reason) <= _MAX_TEXT else f"{reason[:_MAX_TEXT]} .."
    log = _write_log(error)
    where = f"the traceback is in {log}" if log else "no log file could be written; see the traceback with --debug"
    return f"volseg did not expect this error: {short}; {where}. Please report it"


def _write_log(error: Exception) -> Path | None:
    """Write command and traceback where only the user reads them; None if that is impossible."""
    text = (
        f"volseg {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"{redact(' '.join(sys.argv))}\n\n{traceback_text(error)}"
    )
    for folder in _folders():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            number, name = tempfile.mkstemp(prefix="volseg-error-", suffix=".log", dir=folder)  # of mode 0600
            with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return Path(name)
    return None


def _folders() -> Iterator[Path]:
    with suppress(Exception):  # what failed may be an import, or there is no home
        from volseg.storage.cache import cache_folder

        yield cache_folder() / "errors"
    with suppress(OSError):
        yield Path(tempfile.gettempdir())
