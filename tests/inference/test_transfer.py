"""Arrays reach a device and come back in any type; CUDA streams wait for each other."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from volseg.inference.transfer import CudaTransfer, HostTransfer, torch_compatible

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "uint16", ">i2", ">f4", "float64", "int64", "bool"])
def test_values_arrive_in_native_order(dtype: str) -> None:
    array = (np.arange(24).reshape(2, 3, 4) % 2).astype(dtype)[:, ::-1]
    tensor = HostTransfer().to_device(array)
    np.testing.assert_array_equal(tensor.float().numpy(), array.astype(np.float32))
    assert torch_compatible(array).flags.c_contiguous


def test_uint8_is_transferred_as_uint8() -> None:
    array = np.arange(256, dtype=np.uint8)
    assert HostTransfer().to_device(array).dtype == torch.uint8
    np.testing.assert_array_equal(HostTransfer().to_host(HostTransfer().to_device(array))(), array)


class Stream:
    """Double of a CUDA stream; records calls in order."""

    calls: list[str]
    current: list[Stream]

    def __init__(self, name: str = "") -> None:
        self.name = name

    def wait_stream(self, other: Stream) -> None:
        self.calls.append(f"{self.name} waits for {other.name}")


class Event:
    """Double of a CUDA event."""

    def __init__(self, *, enable_timing: bool = False) -> None:
        self.at = -1

    def record(self) -> None:
        self.at = len(Stream.calls)
        Stream.calls.append(f"record in {Stream.current[-1].name}")

    def synchronize(self) -> None:
        Stream.calls.append("synchronize")

    def elapsed_time(self, other: Event) -> float:
        return 1000.0 * (other.at - self.at)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names = iter(["to_device", "to_host"])
    Stream.calls, Stream.current = [], [Stream("compute")]

    @contextmanager
    def stream_context(stream: Stream) -> Iterator[None]:
        Stream.current.append(stream)
        yield
        Stream.current.pop()

    monkeypatch.setattr(torch.cuda, "Stream", lambda: Stream(next(names)))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", stream_context)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream.current[-1])
    monkeypatch.setattr(
        torch.Tensor,
        "record_stream",
        lambda _, stream: Stream.calls.append(f"memory kept for {stream.name}"),
        raising=False,
    )
    return Stream.calls


def test_cuda_streams_wait_for_each_other_and_the_host_only_for_the_result(streams: list[str]) -> None:
    transfer, array = CudaTransfer("cpu"), np.arange(12, dtype=np.uint8).reshape(3, 4)
    tensor = transfer.to_device(array)
    stop_timer = transfer.start_timer()
    seconds = stop_timer()
    result = transfer.to_host(tensor + 1)
    assert streams == [
        "compute waits for to_device", "memory kept for compute",
        "record in compute", "record in compute",
        "to_host waits for compute", "record in to_host", "memory kept for to_host",
    ]  # fmt: skip
    np.testing.assert_array_equal(result(), array + 1)
    assert streams[-1] == "synchronize"
    assert seconds() == 1.0


@pytest.mark.gpu
def test_arrays_make_a_round_trip_through_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    transfer: Any = CudaTransfer()
    arrays = [np.random.default_rng(seed).integers(0, 256, (64, 512, 512), np.uint8) for seed in range(6)]
    results = [transfer.to_host(transfer.to_device(array) + 1) for array in arrays]
    for array, result in zip(arrays, results, strict=True):
        np.testing.assert_array_equal(result(), array + np.uint8(1))
