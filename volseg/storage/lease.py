"""The lease of a target in an object store: which start of a run owns it, as the lock of a file does on a disk.

    0/.volseg/lease.json     owner, epoch, number of its heartbeat, the run's digest, whether it was given back

The owner replaces the object every few seconds, on the condition that it is the version that it wrote last. A start
that finds a lease of another sees within two heartbeats whether that lives; if nothing changes for `duration` seconds
of its own clock, it takes the lease, with the next epoch. No clocks of two machines are compared.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING
from uuid import uuid4

from volseg.errors import TargetError, TargetLostError
from volseg.storage.clock import SYSTEM_CLOCK, Clock
from volseg.storage.conditions import refuse_unconditional
from volseg.storage.object_client import WRITE_SECONDS
from volseg.text import parse_object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volseg.storage.object_path import ObjectPath
    from volseg.storage.target_store import Stored, Tag

LEASE = "lease.json"
_MARGIN = 1.0
_held: dict[ObjectPath, Lease] = {}
"""Of this process, by the folder of the journal."""


@dataclass(frozen=True)
class LeaseTimes:
    """In seconds: without a heartbeat until another start takes over, between two heartbeats, the longest write."""

    duration: float = 45.0
    beat: float = 3.0
    write: float = WRITE_SECONDS


TIMES = LeaseTimes()


@dataclass(frozen=True)
class LeaseState:
    """The content of a lease.

    Attributes:
        owner: host and process, with a token of its own.
        epoch: of the owner: each has a higher one than those before.
        beat: number of the heartbeat.
        clock: of the owner when it began to write this.
        run: digest of the run's record; empty before there is one.
        released: whether the owner gave it back.
        duration: as in `LeaseTimes`, of the owner.
        write: likewise.
        period: seconds between heartbeats.
    """

    owner: str
    epoch: int
    beat: int
    clock: float
    run: str
    released: bool
    duration: float
    write: float
    period: float

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def of(cls, found: Stored, path: ObjectPath) -> LeaseState:
        """Parse an object.

        Raises:
            TargetError: it is no lease.
        """
        try:
            return cls(**parse_object(found.content, "a lease"))
        except (ValueError, TypeError) as error:
            raise TargetError(f"the lease {path} cannot be read: {error}; delete it if no run writes there") from error


class Lease:
    """A lease that this process holds; `renew` is its heartbeat."""

    def __init__(self, folder: ObjectPath, times: LeaseTimes, clock: Clock = SYSTEM_CLOCK) -> None:
        """Take the lease of a target.

        Args:
            folder: of the journal.
            times: of the heartbeat.
            clock: of this process.

        Raises:
            TargetError: the store ignores conditions, or another start holds the lease.
        """
        self._path, self._clock = folder / LEASE, clock
        self.folder, self.times = folder, times
        self._lock = threading.Lock()
        self._lost = ""
        self.previous: Stored | None = None
        refuse_unconditional(folder)
        self._acquire()

    @property
    def epoch(self) -> int:
        """Number of this owner."""
        return self._state.epoch

    @property
    def horizon(self) -> float:
        """Until when no other start can take the lease, by the clock of this process."""
        return self._state.clock + self.times.duration

    def _acquire(self) -> None:
        store, key = self._path.store, self._path.key
        owner = f"{socket.gethostname()}, process {os.getpid()}, {uuid4().hex[:12]}"
        times = self.times
        while True:
            found, epoch = store.read(key), 1
            if found is not None:
                old = LeaseState.of(found, self._path)
                if not old.released:
                    self._await_death(found, old)
                epoch = old.epoch + 1
            now = self._clock.now()
            self._state = LeaseState(
                owner, epoch, 0, now, "", False, times.duration, times.write, times.beat
            )  # fmt: skip
            content = self._state.to_bytes()
            tag = store.create(key, content) if found is None else store.replace(key, content, found.tag)
            if tag is not None:
                self._tag: Tag = tag
                self.previous = found
                return

    def _await_death(self, found: Stored, old: LeaseState) -> None:
        """Wait until an owner has not renewed its lease for its duration.

        Raises:
            TargetError: it renews it.
        """
        asked = self._clock.now()
        while self._clock.now() - asked <= old.duration + _MARGIN:
            self._clock.sleep(min(old.period, self.times.beat))
            again = self._path.store.read(self._path.key)
            if again is None or LeaseState.of(again, self._path).released:
                return
            if again.tag != found.tag:
                target = self.folder.parent.parent
                owner = old.owner.rpartition(",")[0]
                raise TargetError(f"another run ({owner}) is writing into {target}; wait for it to end, or stop it")

    def announce(self, run: str) -> None:
        """State the run's record, so that workers write.

        Raises:
            TargetLostError: another start has taken the lease.
        """
        with self._lock:
            self._write(run=run)
        self._refuse_lost()

    def renew(self) -> None:
        """Write the next heartbeat; a store that does not answer is asked again with the next one."""
        with self._lock, suppress(TargetError):
            if not self._lost:
                self._write()

    def release(self) -> None:
        """Give the lease back, for the next start to take at once."""
        with self._lock, suppress(TargetError):
            if not self._lost:
                self._write(released=True)
                self._lost = "it was given back"

    def _write(self, **changes: object) -> None:
        """Replace the lease by its next state."""
        state = replace(self._state, beat=self._state.beat + 1, clock=self._clock.now(), **changes)  # type: ignore[arg-type]
        content = state.to_bytes()
        tag = self._path.store.replace(self._path.key, content, self._tag)
        if tag is None:
            found = self._path.store.read(self._path.key)
            if found is None or LeaseState.of(found, self._path).owner != state.owner:
                self._lost = "another start of the run has taken it" if found else "it was deleted"
                return
            self._tag = found.tag  # of a heartbeat whose answer was lost
            tag = self._path.store.replace(self._path.key, content, self._tag)
            if tag is None:
                return
        self._state, self._tag = state, tag

    def confirm(self, seconds: float = 0.0) -> None:
        """Wait until the lease outlives so many seconds from this moment.

        Raises:
            TargetLostError: another start has taken it.
            TargetError: the store has not answered for too long.
        """
        started = self._clock.now()
        while True:
            self._refuse_lost()
            now = self._clock.now()
            if now + seconds <= self.horizon:
                return
            if now - started > 10 * self.times.duration:
                raise TargetError(
                    f"the lease {self._path} cannot be renewed; rerun with --resume when the store answers"
                )
            self._clock.sleep(self.times.beat / 4)

    def await_answer(self) -> None:
        """Wait until the store has taken a heartbeat that begins after this moment.

        Raises:
            TargetLostError: as `confirm`.
            TargetError: likewise.
        """
        self.confirm(self.times.duration)

    def await_old_writes(self) -> None:
        """Wait until no worker of the owner before can still write, which gave the lease back a moment ago."""
        if self.previous is None:
            return
        old, taken = LeaseState.of(self.previous, self._path), self._path.store.head(self._path.key)
        since = 0.0 if taken is None else taken.modified - self.previous.modified
        if old.released and old.run and since < old.write + old.period + _MARGIN:
            self._clock.sleep(old.write + old.period + _MARGIN - since)

    def _refuse_lost(self) -> None:
        if self._lost:
            raise TargetLostError(f"the lease of {self.folder.parent.parent} is lost: {self._lost}; this run ends")


@contextmanager
def hold_lease(folder: ObjectPath) -> Iterator[Lease]:
    """Hold the lease of a target, with a heartbeat in a thread.

    Raises:
        TargetError: as `Lease`.
    """
    lease, stop = Lease(folder, TIMES), threading.Event()

    def beat() -> None:
        while not stop.wait(TIMES.beat):
            lease.renew()

    thread = threading.Thread(target=beat, name="volseg-lease", daemon=True)
    thread.start()
    _held[folder] = lease
    try:
        yield lease
    finally:
        del _held[folder]
        stop.set()
        thread.join()
        lease.release()


def held_lease(folder: ObjectPath) -> Lease | None:
    """The lease of a journal's folder that this process holds."""
    return _held.get(folder)


def is_leased(folder: ObjectPath) -> bool:
    """Whether a start holds the lease of a target, by the clocks of this machine and the store: good for a message."""
    found = (folder / LEASE).store.read((folder / LEASE).key)
    if found is None:
        return False
    state = LeaseState.of(found, folder / LEASE)
    return not state.released and time.time() - found.modified < state.duration + state.period
