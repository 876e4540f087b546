"""Batches of patches, cut ahead of the device by worker processes."""

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
from volseg.training.data.sample import Sample

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

    from volseg.training.data.patches import Patch, Patches

Item = TypeVar("Item")

_AHEAD = 3
"""Batches that each worker holds ready."""
_MOST = 4
_PRELOADED = ["torch", "zarr", "volseg.training.data.patches"]
"""Imported once, by the process from which workers are forked."""


class Waiting(Iterator[Item], Generic[Item]):
    """An iterator that knows how long it was waited for.

    Attributes:
        seconds: spent in it so far.
    """

    def __init__(self, inner: Iterable[Item]) -> None:
        self._inner = iter(inner)
        self.seconds = 0.0

    def __next__(self) -> Item:
        started = time.perf_counter()
        try:
            return next(self._inner)
        finally:
            self.seconds += time.perf_counter() - started


def workers_for(setting: int | Literal["auto"]) -> int:
    """How many worker processes `patches.workers` means: `auto` is half of the cores that this process may use."""
    return min(len(os.sched_getaffinity(0)) // 2, _MOST) if setting == "auto" else setting


def loader(
    patches: Patches, numbers: Iterable[int], *, batch: int, workers: int, device: str
) -> Generator[Sample, None, None]:
    """Batches of patches, in the order of their numbers, on the device.

    Workers end when the iterator is closed, exhausted or forgotten, and when this process does.

    Args:
        patches: what to cut from.
        numbers: of the patches; those that one process of several learns from, or those from where a training goes on.
        batch: patches in each sample; the last may have fewer.
        workers: processes that cut; 0 cuts in this one, as it is asked.
        device: where samples are wanted, such as `cuda:0`.

    Raises:
        VolsegError: what went wrong in a worker, as it was raised there.
        TrainingError: a worker that was ended from outside.
    """
    pinned = device.startswith("cuda")
    several: dict[str, Any] = {}
    if workers:
        several = {"multiprocessing_context": _context(), "prefetch_factor": _AHEAD, "worker_init_fn": _start_worker}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores: as asked
        batches = iter(
            DataLoader(
                cast("Any", _Told(patches)),  # it asks for items alone, whatever their base class
                batch_size=batch,
                sampler=numbers,
                num_workers=workers,
                collate_fn=_stacked,
                pin_memory=pinned,
                generator=torch.Generator(),  # the training's own random numbers are left alone
                **several,
            )
        )
    try:
        for parts in batches:
            if isinstance(parts, VolsegError):
                raise parts
            yield Sample(*parts).to(device)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise TrainingError(
            f"a process that cuts patches ended by itself ({error}); it may have lacked memory, or room in /dev/shm: "
            "give fewer patches.workers, or 0. A script that trains needs its `if __name__ == '__main__':`"
        ) from None
    finally:
        del batches  # the last hold on the workers


@dataclass(frozen=True)
class _Told:
    """Patches whose errors are told rather than raised: torch would wrap them in a page of traceback."""

    patches: Patches

    def __getitem__(self, number: int) -> Patch | VolsegError:
        try:
            return self.patches[number]
        except VolsegError as error:
            return error


def _stacked(items: list[Patch | VolsegError]) -> Any:
    """The parts of a `Sample`, or the first error."""
    patches: list[Patch] = []
    for item in items:
        if isinstance(item, VolsegError):
            return item
        patches.append(item)
    raw, labels = (torch.from_numpy(np.stack(part)) for part in ([p.raw for p in patches], [p.labels for p in patches]))
    weights = [patch.weights for patch in patches if patch.weights is not None]
    seeds = torch.tensor([patch.seed for patch in patches], dtype=torch.int64)
    return raw, labels, torch.from_numpy(np.stack(weights)) if weights else None, seeds


def _context() -> BaseContext:
    """Workers are forked from a process without threads: a fork of this one would inherit locks that are held."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    _start_deaf_to_sigterm()
    get_temp_dir()  # workers inherit it, and need none of their own that a killed one would leave behind
    return context


def _start_deaf_to_sigterm() -> None:
    """Batch systems end a whole process group; a training wants to write its checkpoint before its workers go."""
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what starts now inherits it
    try:
        ensure_running()
    finally:
        signal.signal(signal.SIGTERM, before)


def _start_worker(_: int) -> None:
    """Leave Ctrl-C to the process that trains, end when it ends, and decode chunks in one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    threading.Thread(target=_end_with_the_training, daemon=True).start()


def _end_with_the_training() -> None:
    """Torch watches the process that a worker was forked from, which lives as long as its workers do."""
    training = multiprocessing.parent_process()
    if training is not None:
        training.join()
        os._exit(1)
