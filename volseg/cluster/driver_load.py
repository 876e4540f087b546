"""Whether the driver keeps up with its workers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volseg.cluster.progress import Progress

_LOOK_SECONDS, _BUSY = 30.0, 0.8
"""Interval of looks, and the fraction of a core's time above which workers wait for the driver."""
_LEAST_BLOCKS = 1000


class DriverLoad:
    """Says once if workers end blocks faster than one process can send and mark them.

    Args:
        progress: receives the note.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress, self._is_said = progress, False
        self._begin()

    def _begin(self) -> None:
        self._blocks, self._since, self._used = 0, time.monotonic(), time.process_time()

    def add(self) -> None:
        """Count a block that is done."""
        self._blocks += 1
        if self._blocks < _LEAST_BLOCKS or self._is_said:
            return
        seconds, used = time.monotonic() - self._since, time.process_time() - self._used
        if seconds < _LOOK_SECONDS:
            return
        if used > _BUSY * seconds:
            self._is_said = True
            self._progress.note(
                f"workers wait for the driver: {self._blocks / seconds:.0f} blocks a second end, at "
                f"{1e3 * used / self._blocks:.2g} ms of the driver each; a --block twice as long along y and x has a "
                "quarter of the blocks (give it to a new run)"
            )
        self._begin()
