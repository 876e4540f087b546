"""Ctrl-C, SIGTERM and the like: one interruption, and what is open is closed in order."""

from __future__ import annotations

import atexit
import signal

from volseg.system import STOP_SIGNALS, last_blocks

_AHEAD = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
"""Signals that come some time before the end: blocks that run are ended, and no more begun."""


STOPPED = 4
"""Exit code of a command that a signal stopped; with --resume it goes on."""


class Interrupted(KeyboardInterrupt):
    """A stop signal.

    Of a plain KeyboardInterrupt that passes through `exec` of a text, as in the making of a dataclass, Python remembers
    that it was not caught there, and kills itself with SIGINT at its end.
    """


def interrupt_once() -> None:
    """Let the first stop signal raise KeyboardInterrupt, and ignore later ones, and those ignored before (nohup)."""
    atexit.register(_ignore_to_the_end)
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _last_blocks if number in _AHEAD else _interrupt)


def ignore_stops() -> None:
    """Ignore stop signals: this process is ending."""
    for number in STOP_SIGNALS:
        signal.signal(number, _ignore)  # SIG_IGN would print a traceback for a signal that came together with another


def _ignore_to_the_end() -> None:
    """Ignore stop signals while Python ends, which gives those with a handler of ours their default: to kill."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _ignore(number: int, frame: object) -> None:
    pass


def _last_blocks(number: int, frame: object) -> None:
    if not last_blocks.request():
        _interrupt(number, frame)


def _interrupt(number: int, frame: object) -> None:
    ignore_stops()
    raise Interrupted
