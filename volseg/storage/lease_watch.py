"""The worker's side of a lease: whether it outlives a write that is about to begin, without comparing clocks."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING

from volseg.errors import TargetError, TargetLostError
from volseg.storage.clock import SYSTEM_CLOCK, Clock
from volseg.storage.lease import LEASE, LeaseState, held_lease

if TYPE_CHECKING:
    from volseg.storage.object_path import ObjectPath

_DRIFT = 2e-4
"""Of one clock against another, at most."""
_MAX_DRIFT = 2.0
"""Seconds after which the clock of the owner is compared anew."""


class LeaseWatch:
    """Reads the lease of a run before its workers write.

    A heartbeat that replaced one that was read here was written after that reading: so long, at least, the lease lasts.
    From three heartbeats the owner's clock is known well enough to tell the age of any other.
    """

    def __init__(self, folder: ObjectPath, run: str, clock: Clock = SYSTEM_CLOCK) -> None:
        """Watch the lease of a journal's folder for a run with this digest of its record."""
        self._path, self._run, self._clock = folder / LEASE, run, clock
        self._folder = folder
        self._lock = threading.Lock()
        self._state: LeaseState | None = None
        self._reads: list[tuple[int, float]] = []
        """Number of a heartbeat, and when it was last read; the newest three."""
        self._offset: tuple[float, float] | None = None
        """Of this clock against the owner's, at least, and when it was measured."""
        self._horizon = self._asked = float("-inf")

    def confirm(self) -> None:
        """Wait until the lease outlives a write.

        Raises:
            TargetLostError: it is another run's, or was given back.
            TargetError: it was not renewed for its duration.
        """
        held = held_lease(self._folder)
        if held is not None:
            held.confirm(held.times.write)
            return
        with self._lock:
            started = self._clock.now()
            while not self._outlives_write():
                self.refresh()
                state, now = self._state, self._clock.now()
                if state is None or self._outlives_write():
                    return
                if now - started > state.duration:
                    raise TargetError(
                        f"the driver of the run has not renewed the lease {self._path} for {state.duration:.0f} s; "
                        "its blocks are left to the next start"
                    )
                self._clock.sleep(state.period / 4)

    def _outlives_write(self) -> bool:
        state, now = self._state, self._clock.now()
        return state is not None and now - self._asked < state.period and now + state.write <= self._horizon

    def refresh(self) -> None:
        """Read the lease again."""
        asked = self._clock.now()
        found = self._path.store.read(self._path.key)
        target = self._folder.parent.parent
        if found is None:
            raise TargetLostError(f"{target} is gone, or its lease")
        state = LeaseState.of(found, self._path)
        if state.released or state.run != self._run:
            raise TargetLostError(f"{target} is not written by this run any more")
        if self._state is not None and (state.owner, state.epoch) != (self._state.owner, self._state.epoch):
            self._reads, self._offset, self._horizon = [], None, float("-inf")
        self._learn(state, asked)
        self._state, self._asked = state, asked

    def _learn(self, state: LeaseState, asked: float) -> None:
        """Find until when the lease lasts at least."""
        before = [at for beat, at in self._reads if beat < state.beat]
        well_before = [at for beat, at in self._reads if beat < state.beat - 1]
        if self._offset is not None and (asked - self._offset[1]) * _DRIFT > _MAX_DRIFT:
            self._offset = None
        if well_before:  # the owner read its clock after the heartbeat between, and that was written after this
            offset = well_before[-1] - state.clock
            if self._offset is None or offset > self._offset[0]:
                self._offset = (offset, asked)
        ends = [at + state.duration for at in before[-1:]]
        if self._offset is not None:
            drift = (asked - self._offset[1]) * _DRIFT
            ends.append(state.clock + self._offset[0] - drift + state.duration)
        self._horizon = max([self._horizon, *ends])
        self._reads = [*[(beat, at) for beat, at in self._reads if beat != state.beat][-2:], (state.beat, asked)]


@lru_cache(maxsize=4)
def lease_watch(path: ObjectPath, digest: str) -> LeaseWatch:
    """Watch the lease of a target, from the first look on for the life of the process."""
    return LeaseWatch(path / "0" / ".volseg", digest)
