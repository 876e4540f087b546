"""Faults injected into runs: each ends by itself, with the right bytes, or refused and with them after a resume."""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import errno
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import torch

from tests.faults.campaign import Campaign, run_campaign
from tests.faults.contenders import content
from volseg.cluster import NullProgress, policy
from volseg.config import PredictConfig, validate
from volseg.errors import ModelError, RunAbortedError, SourceError, SourceLostError, TargetLostError, VolsegError
from volseg.models.model import load_model_file, save_model
from volseg.pipeline import BlockPipeline, Estimate, process_block
from volseg.prediction import run, worker
from volseg.prediction.absence import CheckedSource
from volseg.prediction.prepare import prepare
from volseg.storage import read_marks
from volseg.storage.shards import ShardFiles
from volseg.testing.factories import make_model, make_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from volseg.blocks import Box
    from volseg.ops import Grey
    from volseg.pipeline import BlockReport
    from volseg.prediction.summary import Summary

SHAPE, BLOCK, BLOCKS = (6, 64, 64), (1, 32, 32), 24
WINDOW = {"serial": 1, "local": 8}
"""Blocks in flight, which may be done twice."""
LIMIT = 240.0
POISONED = "weights are NaN"
_thread_local = threading.local()


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        name: of it.
        strike: does it, on the worker, before a block; may set the thread's `reading` or `writing`.
        once: whether it strikes one attempt only, not all from its block on.
        error: that ends the run; None if the run does all blocks, or all but the one that is struck.
        local: whether it needs worker processes.
        fails: whether the struck block is given up.
        vanishes: whether the driver lets source or target vanish.
    """

    name: str
    strike: Callable[[random.Random], None]
    once: bool = True
    error: type[VolsegError] | None = None
    local: bool = False
    fails: bool = False
    vanishes: bool = False


def stop_process(rng: random.Random) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def hang(rng: random.Random) -> None:
    time.sleep(10_000)


def crash(rng: random.Random) -> None:
    ctypes.string_at(0)


def leave(rng: random.Random) -> None:
    os._exit(rng.choice((0, 1, 11)))


def stall_read(rng: random.Random) -> None:
    _thread_local.reading = partial(time.sleep, 10_000)


def fail_read(rng: random.Random) -> None:
    _thread_local.reading = partial(_raise, OSError(errno.EIO, "Input/output error"))


def flaky_reads(rng: random.Random) -> None:
    def maybe() -> None:
        if rng.random() < 0.05:
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    _thread_local.reading = maybe


def fail_write(rng: random.Random) -> None:
    _thread_local.writing = partial(_raise, OSError(errno.EIO, "Input/output error"))


def fill_disk(rng: random.Random) -> None:
    _thread_local.writing = partial(_raise, OSError(errno.ENOSPC, "No space left on device"))


def run_out_of_memory(rng: random.Random) -> None:
    _thread_local.reading = partial(_raise, MemoryError("cannot allocate 9 GB"))


def limit_memory(rng: random.Random) -> None:
    """Leave the process almost no memory that it does not have yet."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 20), resource.RLIM_INFINITY))


def return_nan(rng: random.Random) -> None:
    _thread_local.is_nan = True


def nothing(rng: random.Random) -> None:
    """What happens is done by the driver."""


def _raise(error: BaseException) -> None:
    raise error


FAULTS = (
    Fault("block hangs", hang),
    Fault("worker is stopped", stop_process, local=True),
    Fault("worker has a segmentation fault", crash, local=True),
    Fault("worker exits", leave, local=True),
    Fault("block is NaN", return_nan, once=False, fails=True),
    Fault(POISONED, nothing, error=ModelError),
    Fault("read stalls", stall_read),
    Fault("read fails", fail_read),
    Fault("store fails in 5 %", flaky_reads, once=False),
    Fault("write fails", fail_write),
    Fault("disk is full", fill_disk, once=False, error=RunAbortedError),
    Fault("source vanishes", nothing, error=SourceLostError, vanishes=True),
    Fault("target vanishes", nothing, error=TargetLostError, vanishes=True),
    Fault("out of memory", run_out_of_memory),
    Fault("memory limit", limit_memory, local=True),
)


def campaign(seed: int, rounds: int, folder: Path) -> Campaign:
    """Play rounds, each kind of fault in turn."""
    policy.FIRST_BACKOFF = 0.01
    raw = make_volume(folder / "raw.zarr", SHAPE, chunk=(1, 32, 32))
    model = make_model(folder / "m.safetensors")
    predict(raw, folder / "alone.zarr", model, "serial", worker.compute_block)
    return run_campaign("injected", seed, rounds, folder, partial(play, content(folder / "alone.zarr"), raw, model))


def play(expected: dict[str, bytes], raw: Path, model: Path, rng: random.Random, folder: Path) -> Counter[str]:
    """One run with one fault."""
    fault = FAULTS[int(folder.name.rpartition("-")[2]) % len(FAULTS)]
    cluster = "local" if fault.local else rng.choice(("serial", "serial", "local"))
    # Late enough for each worker to have done a block, or early enough for blocks to be left.
    block = rng.randrange(4, 12) if fault.vanishes else rng.randrange(16, BLOCKS)
    target, source = folder / "t.zarr", folder / "raw.zarr"
    shutil.copytree(raw, source)
    if fault.name == POISONED:
        model = poison(model, folder / "m.safetensors", rng)
    progress = At(block, partial(vanish, fault, source, target))
    compute = partial(faulty_block, fault=fault.name, block=block, folder=str(folder), seed=rng.randrange(1 << 30))
    with deadline(LIMIT):
        result = outcome(partial(predict, source, target, model, cluster, compute, progress, block_timeout=1.5))
        check(fault, result, block)
        if fault.name == POISONED:
            assert not target.exists()
            return Counter({f"{fault.name}: refused": 1})
        if fault.error is None and not fault.fails:
            assert content(target) == expected, f"{fault.name}: other bytes"
        if not source.exists():
            (folder / "gone.zarr").rename(source)
        predict(source, target, model, "serial", worker.compute_block, resume=True)
    assert content(target) == expected, f"{fault.name}: other bytes after the resume"
    twice = sum(1 for _ in read_marks(target / "0" / ".volseg")) - BLOCKS
    assert twice <= WINDOW[cluster], f"{fault.name}: {twice} blocks were done twice"
    return Counter({f"{fault.name}: right": 1, "blocks done twice": twice})


def outcome(call: Callable[[], Summary]) -> Summary | VolsegError:
    """The summary of a run, or the error that ended it."""
    try:
        return call()
    except VolsegError as error:
        return error


def check(fault: Fault, result: Summary | VolsegError, block: int) -> None:
    """Compare how a run ended with how it should."""
    if isinstance(result, VolsegError):
        assert fault.error is not None, f"{fault.name}: {result}"
        assert isinstance(result, fault.error), f"{fault.name}: {type(result).__name__}: {result}"
        assert fault.name != POISONED or "NaN" in str(result), result
    else:
        assert fault.error is None, f"{fault.name}: the run ended as if nothing had happened"
        assert list(result.failed) == ([block] if fault.fails else []), f"{fault.name}: {result.failed}"


def predict(
    source: Path,
    target: Path,
    model: Path,
    cluster: str,
    compute: Callable[..., BlockReport],
    progress: NullProgress | None = None,
    **options: Any,
) -> Summary:
    """Run with another function for the blocks."""
    options |= {"source": str(source), "target": str(target), "model": str(model), "block": BLOCK, "halo": (0, 16, 16)}
    options |= {"tile": (1, 32, 32), "precision": "float32", "cluster": cluster, "device": "cpu"}
    with mock.patch("volseg.prediction.run.compute_block", compute):
        return run.execute(*prepare(validate(PredictConfig, options, "predict")), progress or NullProgress())


class At(NullProgress):
    """Does something once so many blocks are done."""

    def __init__(self, blocks: int, action: Callable[[], object]) -> None:
        self._left, self._action = blocks, action

    def advance(self, voxels: int, busy: float | None = None) -> None:
        self._left -= 1
        if self._left == 0:
            self._action()


def vanish(fault: Fault, source: Path, target: Path) -> None:
    """Let source or target disappear."""
    if fault.name == "source vanishes":
        source.rename(source.parent / "gone.zarr")
    elif fault.name == "target vanishes":
        shutil.rmtree(target, ignore_errors=True)


def faulty_block(
    number: int, reference: worker.RunRef, *, fault: str, block: int, folder: str, seed: int
) -> BlockReport:
    """Process a block, with a fault at one."""
    install()
    kind = next(kind for kind in FAULTS if kind.name == fault)
    rng = random.Random(f"{seed}-{number}-{os.getpid()}-{time.monotonic_ns()}")
    _thread_local.reading = _thread_local.writing = None
    _thread_local.is_nan = False
    if kind.once and number == block:
        with contextlib.suppress(FileExistsError):
            (Path(folder) / "struck").touch(exist_ok=False)
            kind.strike(rng)
    elif not kind.once and (number == block or (not kind.fails and (number > block or kind.error is None))):
        kind.strike(rng)
    try:
        if not _thread_local.is_nan:
            return worker.compute_block(number, reference)
        pipeline, *_ = worker.pipeline_of(reference)
        return process_block(number, with_nan(pipeline))
    finally:
        _thread_local.reading = _thread_local.writing = None


def with_nan(pipeline: BlockPipeline) -> BlockPipeline:
    """The same pipeline, with a network that returns one NaN."""

    def predicted(predict: Any, grey: Grey, write_box: Box) -> Iterator[Estimate]:
        for estimate in predict(grey, write_box):
            probability = estimate.probability.astype(np.float32) / 255
            probability[0, 0, 0, 0] = np.nan
            yield Estimate(probability, estimate.forward_seconds)

    members = tuple(replace(m, predict=partial(predicted, m.predict)) for m in pipeline.members)
    return replace(pipeline, members=members)


def install() -> None:
    """Let reads and writes of this process ask their thread for a fault first."""
    if getattr(CheckedSource.read, "asks", False):
        return
    read, write = CheckedSource.read, ShardFiles.write

    def faulty_read(self: CheckedSource, box: Box) -> Any:
        if reading := getattr(_thread_local, "reading", None):
            try:
                reading()
            except OSError as error:
                raise SourceError(f"cannot read {box}: {error}") from error
        return read(self, box)

    def faulty_write(self: ShardFiles, voxels: Any) -> Path:
        path = write(self, voxels)
        if writing := getattr(_thread_local, "writing", None):
            path.write_bytes(path.read_bytes()[:7])
            writing()
        return path

    faulty_read.asks = True  # type: ignore[attr-defined]
    CheckedSource.read, ShardFiles.write = faulty_read, faulty_write  # type: ignore[method-assign]


def poison(path: Path, poisoned: Path, rng: random.Random) -> Path:
    """Write a model again with one weight that is NaN or infinite."""
    model = load_model_file(str(path))
    weights = rng.choice([parameter for parameter in model.network.parameters() if parameter.numel()])
    with torch.no_grad():
        weights.view(-1)[rng.randrange(weights.numel())] = rng.choice((np.nan, np.inf, -np.inf))
    save_model(poisoned, model.network, model.card)
    return poisoned


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """AssertionError if the context does not end in time."""
    timer = threading.Timer(seconds, _thread.interrupt_main)
    timer.start()
    try:
        yield
    except KeyboardInterrupt:
        raise AssertionError(f"the run did not end within {seconds:g} s") from None
    finally:
        timer.cancel()
