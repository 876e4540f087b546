"""Dataloader: batches of patches, prefetched by worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.forkserver import ensure_running
from multiprocessing.util import get_temp_dir
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

import numpy as np
import torch
from torch.utils.data import DataLoader

from volseg.errors import TrainingError, VolsegError
from volseg.system import available_cpus
from volseg.training.data.sample import Sample

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

    from volseg.training.data.patches import Patch, PatchDataset

Item = TypeVar("Item")

_PREFETCH_FACTOR = 3
_MAX_AUTO_WORKERS = 4
_PRELOAD = ["torch", "zarr", "volseg.training.data.patches"]
"""Modules that the fork server imports once for all workers."""


class TimedIterator(Iterator[Item], Generic[Item]):
    """An iterator that measures the time spent waiting for its items.

    Attributes:
        seconds: total so far.
    """

    def __init__(self, iterable: Iterable[Item]) -> None:
        self._iterator = iter(iterable)
        self.seconds = 0.0

    def __next__(self) -> Item:
        start = time.perf_counter()
        try:
            return next(self._iterator)
        finally:
            self.seconds += time.perf_counter() - start


def resolve_workers(workers: int | Literal["auto"]) -> int:
    """Number of worker processes for `patches.workers`; `auto`: half of the CPU cores of this process, at most 4."""
    return min(len(available_cpus()) // 2, _MAX_AUTO_WORKERS) if workers == "auto" else workers


def load_batches(
    dataset: PatchDataset, indices: Iterable[int], *, batch_size: int, workers: int, device: str
) -> Generator[Sample, None, None]:
    """Load batches of patches to a device, in the order of their indices.

    Workers exit when the generator is closed, exhausted or garbage-collected, and when this process ends.

    Args:
        dataset: of patches.
        indices: of the patches, possibly infinite.
        batch_size: patches in each sample; the last may have fewer.
        workers: number of processes; 0 loads in this one.
        device: such as `cuda:0`.

    Raises:
        VolsegError: raised in a worker.
        TrainingError: a worker was killed.
    """
    worker_options: dict[str, Any] = {}
    if workers:
        worker_options = {
            "multiprocessing_context": _forkserver_context(),
            "prefetch_factor": _PREFETCH_FACTOR,
            "worker_init_fn": _init_worker,
        }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores
        batches = iter(
            DataLoader(
                cast("Any", _ErrorsAsItems(dataset)),  # needs only __getitem__
                batch_size=batch_size,
                sampler=indices,
                num_workers=workers,
                collate_fn=_collate,
                pin_memory=device.startswith("cuda"),
                generator=torch.Generator(),  # leaves torch's global generator alone
                **worker_options,
            )
        )
    try:
        for batch in batches:
            if isinstance(batch, VolsegError):
                raise batch
            yield Sample(*batch).to(device)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise TrainingError(
            f"a dataloader worker was killed ({error}), perhaps because memory or /dev/shm is full; use fewer "
            "patches.workers, or 0. A script that trains needs `if __name__ == '__main__':`"
        ) from None
    finally:
        del batches  # the last reference to the workers


@dataclass(frozen=True)
class _ErrorsAsItems:
    """A dataset that returns errors instead of raising them: torch would add a traceback to the message."""

    dataset: PatchDataset

    def __getitem__(self, index: int) -> Patch | VolsegError:
        try:
            return self.dataset[index]
        except VolsegError as error:
            return error


def _collate(items: list[Patch | VolsegError]) -> Any:
    """Stack patches into the fields of a `Sample`, or return the first error."""
    patches: list[Patch] = []
    for item in items:
        if isinstance(item, VolsegError):
            return item
        patches.append(item)
    raw, labels = (torch.from_numpy(np.stack(part)) for part in ([p.raw for p in patches], [p.labels for p in patches]))
    weights = [patch.weights for patch in patches if patch.weights is not None]
    seeds = torch.tensor([patch.seed for patch in patches], dtype=torch.int64)
    return raw, labels, torch.from_numpy(np.stack(weights)) if weights else None, seeds


def _forkserver_context() -> BaseContext:
    """Fork workers from a process without threads: a fork of this one could inherit locks that are held."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    _start_forkserver_ignoring_sigterm()
    get_temp_dir()  # shared with the workers, so that a killed worker leaves no temporary folder
    return context


def _start_forkserver_ignoring_sigterm() -> None:
    """Keep the fork server alive on SIGTERM: batch systems signal all processes, and the checkpoint takes a step."""
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # inherited by the fork server and its workers
    try:
        ensure_running()
    finally:
        signal.signal(signal.SIGTERM, handler)


def _init_worker(_: int) -> None:
    """Leave Ctrl-C and SIGTERM to the main process, exit with it, and decode chunks in one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torch has set a handler that exits
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    threading.Thread(target=_exit_with_main_process, daemon=True).start()


def _exit_with_main_process() -> None:
    """Exit when the main process ends; torch only watches the fork server, which lives as long as its workers."""
    main_process = multiprocessing.parent_process()
    if main_process is not None:
        main_process.join()
        os._exit(1)
