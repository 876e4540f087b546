"""The lease of a target in an object store: one owner at a time, by conditions of the store and clocks of one's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from volseg.errors import TargetError, TargetLostError
from volseg.storage import LeaseWatch, ObjectPath, lease, object_path, read_marks
from volseg.storage.clock import Clock
from volseg.storage.conditions import refuse_unconditional
from volseg.storage.journal import Journal
from volseg.storage.lease import Lease, LeaseTimes, held_lease, hold_lease
from volseg.storage.marks import Mark, MarkEncoder
from volseg.storage.object_journal import MAX_SMALL
from volseg.storage.target_store import target_store

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = LeaseTimes(duration=45, beat=3, write=35)


@dataclass
class Time:
    """A clock that passes by sleeping; something happens meanwhile."""

    at: float = 0.0
    rate: float = 1.0
    meanwhile: Callable[[float], None] = lambda seconds: None
    slept: list[float] = field(default_factory=list)

    def clock(self, offset: float = 0.0) -> Clock:
        return Clock(lambda: self.at + offset, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.at += seconds
        self.slept.append(seconds)
        self.meanwhile(seconds)


@pytest.fixture
def folder() -> ObjectPath:
    return ObjectPath(f"memory://{uuid4().hex}", "m.zarr/0/.volseg")


def mark(block: int) -> Mark:
    return Mark(block, "0" * 31 + "1", 1, "worker", 1.0, "", 10, "0" * 31 + "2")


def test_a_second_start_is_refused_within_two_heartbeats_of_a_living_owner(folder: ObjectPath) -> None:
    time = Time()
    first = Lease(folder, TIMES, time.clock())
    time.meanwhile = lambda seconds: first.renew()
    with pytest.raises(TargetError, match="another run .* is writing into memory://.*; wait for it to end"):
        Lease(folder, TIMES, time.clock(1e6))
    assert time.at <= 2 * TIMES.beat
    assert first.epoch == 1


def test_a_dead_owner_is_replaced_within_a_minute_and_ends_when_it_wakes(folder: ObjectPath) -> None:
    time = Time()
    first = Lease(folder, TIMES, time.clock())
    second = Lease(folder, TIMES, time.clock(-1e6))
    assert TIMES.duration <= time.at <= 60
    assert second.epoch == 2
    first.renew()
    with pytest.raises(TargetLostError, match="another start of the run has taken it"):
        first.confirm()
    second.renew()
    second.confirm()


def test_a_lease_that_was_given_back_is_taken_at_once(folder: ObjectPath) -> None:
    time = Time()
    for epoch in (1, 2, 3):
        held = Lease(folder, TIMES, time.clock())
        assert held.epoch == epoch
        held.release()
    assert time.slept == []


def test_a_heartbeat_whose_answer_was_lost_keeps_the_lease(folder: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Lease(folder, TIMES, Time().clock())
    store = target_store(folder.root)
    replace = store.replace

    def lost(key: str, content: bytes, tag: Any) -> Any:
        replace(key, content, tag)
        raise TargetError("the server does not answer")

    monkeypatch.setattr(store, "replace", lost)
    held.renew()
    monkeypatch.undo()
    held.renew()
    held.confirm()


class Careless:
    """A store that writes whatever the condition says, or does so for one kind of them."""

    def __init__(self, *, keeps: str) -> None:
        self.keeps, self.stored, self.tags = keeps, dict[str, bytes](), count()

    def put(self, key: str) -> tuple[str, None]:
        self.stored[key] = b""
        return str(next(self.tags)), None

    def create(self, key: str, content: bytes) -> Any:
        return None if self.keeps == "create" and key in self.stored else self.put(key)

    def replace(self, key: str, content: bytes, tag: Any) -> Any:
        return self.put(key)

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            self.stored.pop(key, None)


@pytest.mark.parametrize("keeps", ["create", "nothing"])
def test_a_store_that_ignores_a_condition_is_refused(
    keeps: str, folder: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Careless(keeps=keeps)
    monkeypatch.setattr(object_path, "target_store", lambda root: store)
    with pytest.raises(TargetError, match="ignores conditions on writes"):
        refuse_unconditional(folder)
    assert store.stored == {}


def test_a_worker_writes_only_while_the_lease_outlives_the_write(folder: ObjectPath) -> None:
    """Whatever its clock says: each accepted write of 35 s ends before any other start can take the lease."""
    time = Time()
    owner = Lease(folder, TIMES, time.clock(12345.0))
    owner.announce("run")
    alive, watch, beats = True, LeaseWatch(folder, "run", time.clock(-777.0)), [time.at]

    def meanwhile(seconds: float) -> None:
        while alive and time.at - beats[-1] >= TIMES.beat:
            beats.append(beats[-1] + TIMES.beat)
            owner.renew()

    time.meanwhile = meanwhile
    for pause in (0.0, 1.0, 100.0, 4.0, 1000.0, 2.0):
        time.sleep(pause)
        began = time.at
        watch.confirm()
        assert time.at + TIMES.write <= beats[-1] + TIMES.duration
        assert time.at - began <= 2.5 * TIMES.beat
    alive, died = False, time.at

    def write_on() -> None:
        for _ in range(100):
            watch.confirm()
            assert time.at + TIMES.write <= died + TIMES.duration
            time.sleep(1.0)

    with pytest.raises(TargetError, match="has not renewed the lease"):
        write_on()


def test_a_worker_of_another_run_does_not_write(folder: ObjectPath) -> None:
    time = Time()
    owner = Lease(folder, TIMES, time.clock())
    owner.announce("run")
    with pytest.raises(TargetLostError, match="is not written by this run"):
        LeaseWatch(folder, "other", time.clock()).confirm()
    watch = LeaseWatch(folder, "run", time.clock())
    watch.refresh()
    owner.release()
    with pytest.raises(TargetLostError, match="is not written by this run"):
        watch.confirm()


def test_marks_of_an_old_owner_that_land_late_are_not_accepted(
    folder: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "TIMES", LeaseTimes(1.0, 0.05, 0.1))
    for block in (1, 2):
        with hold_lease(folder), Journal(folder, run="run", is_locked=True) as journal:
            journal.mark(mark(block))
    late = folder / "journal-000001-000000009-000000009.marks"
    late.write_bytes(MarkEncoder.header("run") + MarkEncoder().encode([mark(7)]))
    assert [found.block for found in read_marks(folder)] == [1, 2]
    with hold_lease(folder), Journal(folder, run="run", is_locked=True) as journal:
        journal.mark(mark(3))
    assert not late.is_file()
    assert [found.block for found in read_marks(folder)] == [1, 2, 3]


def test_a_journal_has_a_thousand_objects_at_most_in_the_order_of_its_marks(
    folder: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "TIMES", LeaseTimes(100.0, 0.05, 0.1))
    most = 0
    with hold_lease(folder), Journal(folder, run="run", is_locked=True) as journal:
        assert held_lease(folder) is not None
        for block in range(2 * MAX_SMALL + 10):
            journal._segment.append([mark(block)])
            most = max(most, len(list(folder.files())))
    assert most <= MAX_SMALL + 10
    assert [found.block for found in read_marks(folder)] == list(range(2 * MAX_SMALL + 10))


@pytest.mark.parametrize("lost_at", ["start", "mark"])
def test_an_owner_that_lost_its_lease_writes_nothing_to_the_journal(
    folder: ObjectPath, monkeypatch: pytest.MonkeyPatch, lost_at: str
) -> None:
    def lose(seconds: float = 0.0) -> None:
        raise TargetLostError("another start of the run has taken it")

    with hold_lease(folder):
        held = held_lease(folder)
        assert held is not None
        journal = Journal(folder, is_locked=True) if lost_at == "mark" else None
        if journal is not None:
            journal.mark(mark(1))
        monkeypatch.setattr(held, "confirm", lose)
        before = [path.name for path in folder.files()]
        with pytest.raises(TargetLostError):
            journal.close() if journal is not None else Journal(folder, is_locked=True)
        assert [path.name for path in folder.files()] == before
        monkeypatch.undo()
