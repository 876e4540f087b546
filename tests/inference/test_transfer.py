"""What goes to a device comes back, in any type; on a GPU no way is used before what it carries is there."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from volseg.inference.transfer import CudaTransfer, HostTransfer, portable

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "uint16", ">i2", ">f4", "float64", "int64", "bool"])
def test_values_arrive_in_native_order(dtype: str) -> None:
    array = (np.arange(24).reshape(2, 3, 4) % 2).astype(dtype)[:, ::-1]
    there = HostTransfer().up(array)
    np.testing.assert_array_equal(there.float().numpy(), array.astype(np.float32))
    assert portable(array).flags.c_contiguous


def test_bytes_stay_bytes_on_the_way() -> None:
    array = np.arange(256, dtype=np.uint8)
    assert HostTransfer().up(array).dtype == torch.uint8
    np.testing.assert_array_equal(HostTransfer().down(HostTransfer().up(array))(), array)


class Stream:
    """Stands in for a CUDA stream; keeps what was asked of it, in order."""

    told: list[str]
    now: list[Stream]

    def __init__(self, name: str = "") -> None:
        self.name = name

    def wait_stream(self, other: Stream) -> None:
        self.told.append(f"{self.name} waits for {other.name}")


class Event:
    """Stands in for a CUDA event."""

    def __init__(self, *, enable_timing: bool = False) -> None:
        self.at = -1

    def record(self) -> None:
        self.at = len(Stream.told)
        Stream.told.append(f"mark in {Stream.now[-1].name}")

    def synchronize(self) -> None:
        Stream.told.append("fetched")

    def elapsed_time(self, other: Event) -> float:
        return 1000.0 * (other.at - self.at)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names = iter(["up", "down"])
    Stream.told, Stream.now = [], [Stream("compute")]

    @contextmanager
    def within(stream: Stream) -> Iterator[None]:
        Stream.now.append(stream)
        yield
        Stream.now.pop()

    monkeypatch.setattr(torch.cuda, "Stream", lambda: Stream(next(names)))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream.now[-1])
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda _, stream: Stream.told.append(f"kept for {stream.name}"), raising=False
    )
    return Stream.told


def test_a_gpus_ways_wait_for_one_another_and_for_nothing_else(streams: list[str]) -> None:
    bus, array = CudaTransfer("cpu"), np.arange(12, dtype=np.uint8).reshape(3, 4)
    there = bus.up(array)
    stop = bus.clock()
    seconds = stop()
    fetch = bus.down(there + 1)
    assert streams == [
        "compute waits for up", "kept for compute",
        "mark in compute", "mark in compute",
        "down waits for compute", "mark in down", "kept for down",
    ]  # fmt: skip
    np.testing.assert_array_equal(fetch(), array + 1)
    assert streams[-1] == "fetched"
    assert seconds() == 1.0


@pytest.mark.gpu
def test_a_gpu_gives_back_what_it_was_given() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    bus: Any = CudaTransfer()
    arrays = [np.random.default_rng(seed).integers(0, 256, (64, 512, 512), np.uint8) for seed in range(6)]
    fetches = [bus.down(bus.up(array) + 1) for array in arrays]
    for array, fetch in zip(arrays, fetches, strict=True):
        np.testing.assert_array_equal(fetch(), array + np.uint8(1))
