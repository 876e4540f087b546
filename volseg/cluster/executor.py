"""Executors: what a run computes its blocks with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from volseg.cluster.attempt import Attempt
    from volseg.cluster.job_queue import BlockQueue, BlockTask
    from volseg.cluster.policy import Deadline
    from volseg.cluster.progress import Progress
    from volseg.pipeline import BlockReport

SLOTS = 2
"""Blocks that a worker holds at once, so that reading, predicting and writing of different blocks overlap."""


class Executor(Protocol):
    """Runs functions on workers: this process, or the workers of a Dask cluster."""

    @property
    def where(self) -> str:
        """Name for messages."""

    @property
    def workers(self) -> tuple[str, ...]:
        """Names of the workers."""

    @property
    def slots(self) -> int:
        """Blocks in flight on all workers."""

    @property
    def slots_per_worker(self) -> int:
        """Blocks in flight on one worker, at most."""

    @property
    def wasted(self) -> Mapping[str, float]:
        """Seconds that each worker spent in blocks which others did first."""

    def run_on_all(self, call: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call a short function once on every worker."""

    def run_on_each(self, call: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """As `run_on_all`; the results by the names of the workers."""

    def run_on_one(self, call: Callable[..., Any], *arguments: Any, among: Sequence[str] = ()) -> Any:
        """Call a function, which may take long, on one free worker; on one of `among` as long as these are there."""

    def map(self, call: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Call a function on each item, one at a time on each worker; yields results in the order of completion.

        An item is taken when a worker is free for it.
        """

    def attempts(
        self, queue: BlockQueue, compute: Callable[[int], BlockReport], progress: Progress, deadline: Deadline
    ) -> Generator[tuple[BlockTask, Attempt]]:
        """Attempt the blocks of a queue until it is empty; yields each attempt once it has ended or is late."""

    def name_of(self, worker: str) -> str:
        """Name of a worker that stays when its process is replaced."""

    def replace(self, worker: str) -> None:
        """Start a worker's process anew, if that is possible; its blocks are put back."""

    def leave_out(self, worker: str) -> bool:
        """Send no more blocks to a worker; False if there is no other."""
