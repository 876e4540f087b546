"""What computes blocks: the executors' common Protocol."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from volseg.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from distributed import Client


SLOT = "slot"
"""The Dask resource: how many blocks a worker holds at once, so that reading, predicting and writing overlap."""


SLOTS = 2


@dataclass
class Cluster:
    """Something that computes blocks.

    Attributes:
        client: the connection to a scheduler; None where this process does the work itself.
        where: what to call it in messages.
        names: of the workers.
        slots: blocks that may be in flight on all of them.
        slots_each: blocks that may be in flight on one of them, at the most.
    """

    client: Client | None
    where: str = "this process"
    names: tuple[str, ...] = ("this process",)
    slots: int = 1
    slots_each: int = 1
    _looked: float = 0.0

    def others(self, failed_on: tuple[str, ...]) -> list[str]:
        """Workers that are there now and have not tried a block yet; none for a block that nobody tried."""
        if not failed_on:
            return []
        self.refresh(now=True)
        return [name for name in self.names if name not in failed_on]

    def refresh(self, *, now: bool = False) -> None:
        """See which workers have come or gone, at most every few seconds unless it must be `now`."""
        if self.client is None or (not now and time.monotonic() - self._looked < _REFRESH_SECONDS):
            return
        self._looked = time.monotonic()
        if able := self._able():
            self.names, self.slots, self.slots_each = tuple(able), sum(able.values()), max(able.values())

    def alive(self) -> bool:
        """Whether there is any worker to do a block, asked now."""
        return self.client is None or bool(self._able())

    def _able(self) -> dict[str, int]:
        """Slots of each worker that has some."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"] if self.client else {}
        return {name: int(w["resources"][SLOT]) for name, w in workers.items() if w["resources"].get(SLOT)}

    def on_each(self, call: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call a function once on every worker; a quick one, for Dask counts a worker as dead meanwhile."""
        if self.client is None:
            return [call(*arguments)]
        self.refresh(now=True)
        results: dict[str, Any] = self.client.run(call, *arguments, workers=list(self.names))
        return list(results.values())

    def on_one(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function on a worker that is free; it may take long.

        Raises:
            VolsegError: what the function raised.
            ClusterError: the workers that tried it died.
        """
        (made,) = self.each(partial(_called, call), [arguments])
        return made

    def each(self, call: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Call a function on a few items, one at a time on each worker; yields results as they come.

        An item is taken when a worker is free for it, so items may go by what came of those before.

        Raises:
            VolsegError: what the function raised, whichever item was the first.
            ClusterError: the workers that tried an item died.
        """
        if self.client is None:
            yield from map(call, items)
            return
        from distributed import KilledWorker, as_completed  # noqa: PLC0415 - a serial run needs no Dask

        waiting, send = iter(items), partial(self.client.submit, call, pure=False, resources={SLOT: 1})
        running = as_completed([send(item) for item in islice(waiting, len(self.names))])
        try:
            for future in running:
                yield future.result()
                running.update([send(item) for item in islice(waiting, 1)])
        except (KilledWorker, CancelledError) as error:
            raise ClusterError(
                f"workers of {self.where} died, one after the other, at the same task; see their logs (a batch system "
                "may have stopped them for their memory)"
            ) from error


def _called(call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return call(*arguments)


_REFRESH_SECONDS = 5.0
