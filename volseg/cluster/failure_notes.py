"""Notes of failed attempts: the first of each kind, then how many more there were."""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import TYPE_CHECKING

from volseg.text import counted

if TYPE_CHECKING:
    from volseg.cluster.attempt import Failure
    from volseg.cluster.progress import Progress

_SHOWN = 3
"""Notes of one kind that are shown one by one."""
_SUM_SECONDS = 30.0
"""Interval at which the others are summed up."""
_VARIABLE = re.compile(r"\d+|0x[0-9a-f]+")


class FailureNotes:
    """Shows few notes, however many attempts fail.

    Args:
        progress: receives them.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._seen: Counter[str] = Counter()
        self._hidden: Counter[str] = Counter()
        self._summed = time.monotonic()

    def add(self, line: str, failure: Failure) -> None:
        """Take the note of a failed attempt, shown if it is one of the first that fail so."""
        kind = f"{failure.kind}: {_VARIABLE.sub('#', failure.message)}"
        self._seen[kind] += 1
        if self._seen[kind] <= _SHOWN:
            self._progress.note(line)
            if failure.traceback and self._seen[kind] == 1:
                self._progress.note(failure.traceback.rstrip())
            return
        self._hidden[failure.kind] += 1
        if time.monotonic() - self._summed >= _SUM_SECONDS:
            self.sum_up()

    def sum_up(self) -> None:
        """Show how many attempts failed like those that were shown."""
        self._summed = time.monotonic()
        if self._hidden:
            kinds = ", ".join(f"{number} {kind}" for kind, number in self._hidden.most_common())
            self._progress.note(f"{counted(self._hidden.total(), 'more attempt')} failed like these: {kinds}")
            self._hidden.clear()
