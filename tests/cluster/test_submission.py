"""What a window sends and hears, with a scheduler that is only pretended."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from volseg.cluster import Attempt, Cluster, Failure
from volseg.cluster.attempt import packed, unpacked
from volseg.cluster.job_queue import BlockQueue, BlockTask
from volseg.cluster.submission import AHEAD, SubmissionWindow, _tidying
from volseg.errors import ClusterError
from volseg.testing.doubles import Notes, report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SLOTS = 4
WORKER = "tcp://node:1"


class PretendedFuture:
    """A future that ends when a test says so."""

    def __init__(self, number: int) -> None:
        self.number, self.status, self.released, self.fetched = number, "pending", False, False

    def release(self) -> None:
        self.released = True

    def cancelled(self) -> bool:
        return self.status == "cancelled"

    def exception(self) -> Exception | None:
        return RuntimeError("the worker died") if self.status == "error" else None

    def result(self) -> Attempt:
        self.fetched = True
        return Attempt(self.number, WORKER, report(self.number))


class PretendedClient:
    """Keeps what a scheduler would be sent, and tells what a worker would."""

    def __init__(self) -> None:
        self.groups: list[tuple[list[int], list[str] | None]] = []
        self.futures: dict[str, PretendedFuture] = {}
        self.handlers: dict[str, Callable[[Any], None]] = {}
        self.tidied = 0

    def run_on_scheduler(self, call: Any) -> None:
        self.tidied += 1
        if self.tidied > 2:
            raise OSError("the scheduler is gone")

    def map(self, call: Any, numbers: list[int], *, key: list[str], workers: Any, **_: Any) -> list[PretendedFuture]:
        self.groups.append((numbers, workers))
        futures = [PretendedFuture(number) for number in numbers]
        self.futures.update(zip(key, futures, strict=True))
        return futures

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {name: {"resources": {"slot": SLOTS // 2}} for name in (WORKER, "tcp://node:2")}}

    def subscribe_topic(self, topic: str, handler: Callable[[Any], None]) -> None:
        self.handlers[topic] = handler

    def unsubscribe_topic(self, topic: str) -> None:
        del self.handlers[topic]

    def tell(self, key: str, attempt: Attempt) -> None:
        for handler in self.handlers.values():
            handler((0.0, (key, *packed(attempt))))

    def key(self, number: int) -> str:
        return next(key for key, future in self.futures.items() if future.number == number)


@pytest.fixture
def client() -> PretendedClient:
    return PretendedClient()


@pytest.fixture
def window(client: PretendedClient) -> Iterator[SubmissionWindow]:
    with SubmissionWindow(Cluster(client, slots=SLOTS), client, report) as window:
        yield window


def done(number: int) -> Attempt:
    return Attempt(number, WORKER, report(number))


def test_all_that_there_is_room_for_goes_as_one_message(window: SubmissionWindow, client: PretendedClient) -> None:
    jobs = BlockQueue(range(100))
    window.fill(jobs)
    assert client.groups == [(list(range(AHEAD * SLOTS)), None)]
    for number in (3, 0, 5):
        client.tell(client.key(number), done(number))
    assert [job.number for job, _ in window.wait(Notes())] == [3, 0, 5]
    window.fill(jobs)
    assert client.groups[1:] == [([8, 9, 10], None)]
    assert len(window) == AHEAD * SLOTS


def test_what_workers_tell_of_is_not_fetched(window: SubmissionWindow, client: PretendedClient) -> None:
    window.fill(BlockQueue(range(3)))
    for number in range(3):
        client.futures[client.key(number)].status = "finished"
        client.tell(client.key(number), done(number))
    assert [attempt for _, attempt in window.wait(Notes())] == [done(number) for number in range(3)]
    assert not any(future.fetched for future in client.futures.values())
    assert all(future.released for future in client.futures.values())


def test_a_block_that_ended_untold_is_fetched(window: SubmissionWindow, client: PretendedClient) -> None:
    window.fill(BlockQueue(range(3)))
    client.futures[client.key(1)].status = "finished"
    [(job, attempt)] = window.wait(Notes())
    assert (job.number, attempt) == (1, done(1))
    assert client.futures[client.key(1)].fetched


def test_a_block_that_is_told_of_twice_counts_once(window: SubmissionWindow, client: PretendedClient) -> None:
    window.fill(BlockQueue(range(2)))
    client.tell(client.key(0), done(0))
    client.tell(client.key(0), done(0))
    assert [job.number for job, _ in window.wait(Notes())] == [0]
    assert len(window) == 1


def test_the_scheduler_is_tidied_every_half_minute_while_it_is_there(
    window: SubmissionWindow, client: PretendedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, seen = time.monotonic(), []
    for seconds in (0, 31, 32, 62, 93):
        monkeypatch.setattr(time, "monotonic", lambda at=now + seconds: at)
        window.fill(BlockQueue(()))
        seen.append(client.tidied)
    assert seen == [0, 1, 1, 2, 3]


def test_tidying_leaves_what_others_keep() -> None:
    future, array = {"type": "Future"}, {"type": "Array"}
    spans = {
        "a": SimpleNamespace(metadata={"collections": [future, array, future]}),
        "b": SimpleNamespace(metadata=None),
    }
    _tidying()(SimpleNamespace(extensions={"spans": SimpleNamespace(spans=spans)}))
    assert spans["a"].metadata == {"collections": [array]}
    _tidying()(SimpleNamespace(extensions={}))


def test_blocks_of_other_runs_are_passed_over(window: SubmissionWindow, client: PretendedClient) -> None:
    window.fill(BlockQueue(range(2)))
    client.tell("volseg-another-run-0-1", done(0))
    client.tell(client.key(1), done(1))
    assert [job.number for job, _ in window.wait(Notes())] == [1]


def test_a_lost_worker_is_a_failure_and_a_lost_scheduler_an_error(
    window: SubmissionWindow, client: PretendedClient
) -> None:
    window.fill(BlockQueue(range(2)))
    client.futures[client.key(0)].status = "error"
    [(job, attempt)] = window.wait(Notes())
    assert job.number == 0
    assert attempt.result == Failure("RuntimeError: the worker died", again=True, lost=True)
    client.futures[client.key(1)].status = "cancelled"
    with pytest.raises(ClusterError, match="lost; start it again and give --resume"):
        window.wait(Notes())


def test_a_block_that_failed_goes_alone_to_a_worker_that_did_not_try_it(
    window: SubmissionWindow, client: PretendedClient
) -> None:
    jobs = BlockQueue(range(2))
    jobs.again.append(BlockTask(7, attempt=2, failed_on=(WORKER,)))
    window.fill(jobs)
    assert client.groups == [([7], ["tcp://node:2"]), ([0, 1], None)]


def test_what_is_left_is_let_go_when_a_run_is_stopped(client: PretendedClient) -> None:
    with SubmissionWindow(Cluster(client, slots=SLOTS), client, report) as window:
        window.fill(BlockQueue(range(100)))
    assert all(future.released for future in client.futures.values())
    assert not client.handlers


@pytest.mark.parametrize("result", [report(5), Failure("a disk hiccup", again=True, trace="in line 3", lost=False)])
def test_an_attempt_outlives_a_message(result: Any) -> None:
    attempt = Attempt(5, WORKER, result)
    assert unpacked(tuple(packed(attempt))) == attempt
