"""A function mapped over items on Dask workers, whatever becomes of a worker meanwhile."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from volseg.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from distributed import Client, Future

ATTEMPTS = 3
MIN_SECONDS = 1800.0
"""An item may take so long, or ten times the slowest one before."""
_FACTOR = 10.0
_LOOK_SECONDS = 1.0


class Workers(Protocol):
    """Workers of a cluster."""

    @property
    def where(self) -> str: ...

    def holders(self) -> dict[str, str]: ...

    def restart(self, worker: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Item:
    value: Any
    attempt: int = 1
    sent: float = field(default_factory=time.monotonic)


def map_items(
    workers: Workers,
    client: Client,
    call: Callable[[Any], Any],
    items: Iterable[Any],
    resources: Mapping[str, int],
    in_flight: int,
    among: Sequence[str] = (),
) -> Iterator[Any]:
    """Yield the results of a function, in the order of completion.

    Args:
        workers: that compute.
        client: the connection to them.
        call: the function.
        items: its arguments; one is taken when a worker is free for it.
        resources: that a call takes on a worker.
        in_flight: calls at once, at most.
        among: names of the workers that compute as long as they are there; any if it is empty.

    Raises:
        VolsegError: the first that the function raised.
        ClusterError: the workers that tried an item died, or did not end it.
    """
    from distributed import KilledWorker, wait  # noqa: PLC0415 - a serial run needs no Dask

    def submit(item: _Item) -> Future[Any]:
        preferred = {"workers": [*among], "allow_other_workers": True} if among else {}
        return client.submit(call, item.value, pure=False, resources=resources, **preferred)

    remaining, slowest = iter(items), 0.0
    running = {submit(item): item for item in map(_Item, islice(remaining, in_flight))}
    while running:
        try:
            ended = wait(list(running), timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            ended = set()
        again = []
        for future in ended:
            item = running.pop(future)
            try:
                result = future.result()
            except (KilledWorker, CancelledError) as error:
                again.append(_next_attempt(item, workers, "died", error))
            else:
                slowest = max(slowest, time.monotonic() - item.sent)
                yield result
                running |= {submit(new): new for new in map(_Item, islice(remaining, 1))}
        again += _taken_from_late(running, workers, max(MIN_SECONDS, _FACTOR * slowest))
        running |= {submit(item): item for item in again}


def _taken_from_late(running: dict[Future[Any], _Item], workers: Workers, seconds: float) -> list[_Item]:
    """Items to send again: those of the workers that hold one for too long, which are restarted."""
    late = [future for future, item in running.items() if time.monotonic() - item.sent > seconds]
    if not late:
        return []
    holders = workers.holders()
    again = [_next_attempt(running[future], workers, f"did not end it within {seconds:g} s") for future in late]
    for future in late:
        del running[future]
        future.release()
    for worker in {holders[str(future.key)] for future in late if str(future.key) in holders}:
        workers.restart(worker)
    return again


def _next_attempt(item: _Item, workers: Workers, fate: str, error: BaseException | None = None) -> _Item:
    if item.attempt >= ATTEMPTS:
        raise ClusterError(
            f"{ATTEMPTS} workers of {workers.where}, one after the other, {fate} at the same task; see their logs (a "
            "batch system may have stopped them for exceeding their memory)"
        ) from error
    return replace(item, attempt=item.attempt + 1, sent=time.monotonic())
