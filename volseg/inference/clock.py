"""How long a thread had the device to itself: forward passes alone, without waiting for another block's."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class DeviceClock(threading.local):
    """Counts seconds, for each thread apart."""

    seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count while this lasts."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started


DEVICE = DeviceClock()
"""Runs while a forward pass does."""
