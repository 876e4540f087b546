"""The end of a run does not wait for slow workers, and deaths of workers cost what they held."""

from __future__ import annotations

import pytest

from benchmarks.simulator.cluster import SimulatedCluster
from volseg.cluster import FailurePolicy, Outcome, run_blocks
from volseg.testing.doubles import MarkRecorder, NoteRecorder, report


def run(cluster: SimulatedCluster, blocks: int) -> tuple[Outcome, float]:
    """Run blocks; each is marked once, or it is an error. Returns the seconds that it took."""
    marks, start = MarkRecorder(), cluster.now
    with cluster.executor() as executor:
        outcome = run_blocks(executor, range(blocks), report, marks, NoteRecorder(), policy=FailurePolicy(0.0))
    assert sorted(marks.done) == list(range(blocks))
    assert not outcome.failed
    return outcome, cluster.now - start


def test_one_worker_in_a_hundred_ten_times_slower_does_not_delay_the_end() -> None:
    cluster = SimulatedCluster(["GPU"] * 100, lambda number, worker: 20.0 if worker == 7 else 2.0)
    _, took = run(cluster, 6000)
    ideal = 6000 * 2.0 / 99.1
    assert took <= 1.05 * ideal, f"{took / ideal:.3f}"


def test_a_block_is_never_sent_to_another_kind() -> None:
    """The slow CPU has no idle worker of its own kind: its block ends where it is."""
    cluster = SimulatedCluster(["GPU"] * 9 + ["CPU"], lambda number, worker: 60.0 if worker == 9 else 1.0)
    _, took = run(cluster, 300)
    assert took >= 60
    twice = cluster.tasks - 300
    assert twice <= 0


def test_a_fleet_of_even_workers_sends_nothing_twice() -> None:
    cluster = SimulatedCluster(["GPU"] * 20, lambda number, worker: 1.0 + number % 7 / 10)
    run(cluster, 500)
    assert cluster.tasks == 500


@pytest.mark.parametrize("seed", range(3))
def test_deaths_cost_what_workers_held(seed: int) -> None:
    cluster = SimulatedCluster(["GPU"] * 50, lambda number, worker: 2.0, lifetime=300.0, seed=seed)
    _, took = run(cluster, 5000)
    assert cluster.deaths > 20
    assert took <= 1.06 * 5000 * 2.0 / 50


def test_quick_blocks_go_many_to_a_task() -> None:
    cluster = SimulatedCluster(["CPU"] * 16, lambda number, worker: 0.004)
    _, took = run(cluster, 20_000)
    assert cluster.tasks < 20_000 / 25
    assert took <= 1.15 * 20_000 * 0.004 / 16


def test_a_block_that_ends_workers_is_given_up_alone_though_it_is_one_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = SimulatedCluster(["CPU"] * 8, lambda number, worker: 0.004)
    begin = cluster._begin

    def deadly(worker, task, at, life):
        if task.numbers[at] == 3333:
            cluster._after(0.004, lambda: cluster._die(worker.name))
        else:
            begin(worker, task, at, life)

    monkeypatch.setattr(cluster, "_begin", deadly)
    monkeypatch.setattr(cluster, "_plan_death", lambda name: None)
    marks = MarkRecorder()
    with cluster.executor() as executor:
        outcome = run_blocks(executor, range(8_000), report, marks, NoteRecorder(), policy=FailurePolicy(0.0))
    assert list(outcome.failed) == [3333]
    assert sorted(marks.done) == [number for number in range(8_000) if number != 3333]
    assert cluster.deaths <= 7
