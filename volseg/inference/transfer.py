"""How tiles reach a device and what it makes comes back, as bytes where bytes are all there is to say.

On a GPU each way has a stream of its own, and memory that is pinned, so that while one pass is computed the next one's
tiles go up and the last one's probabilities come down:

    up        [ tiles 2 ]    [ tiles 3 ]
    compute   [ pass 1      ][ pass 2      ][ pass 3      ]
    down                     [ 1 ]          [ 2 ]
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from volseg.inference.settings import Device

_TRAVELS = frozenset(map(np.dtype, ("uint8", "int8", "int16", "int32", "float32")))
"""What goes to the device as it is; all else becomes float32 first, as a network's input must."""


class DeviceTransfer(Protocol):
    """The way to a device and back; used by one thread."""

    def up(self, array: NDArray[Any]) -> Tensor:
        """An array on the device, for what is computed next."""

    def down(self, made: Tensor) -> Callable[[], NDArray[Any]]:
        """Begin to fetch a result; to be called for it, by any thread, once it is wanted."""

    def clock(self) -> Callable[[], Callable[[], float]]:
        """Start counting what the device computes; call it to stop, and what that gives for seconds, after `down`."""


def transfer_to(device: Device) -> DeviceTransfer:
    """The way to a device."""
    return CudaTransfer() if device == "cuda" else HostTransfer()


def portable(array: NDArray[Any]) -> NDArray[Any]:
    """Voxels in a type, byte order and layout that torch takes on any device."""
    return np.ascontiguousarray(array if array.dtype in _TRAVELS else array.astype(np.float32))


class HostTransfer:
    """A CPU has its tiles already."""

    def up(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(portable(array))

    def down(self, made: Tensor) -> Callable[[], NDArray[Any]]:
        return made.numpy

    def clock(self) -> Callable[[], Callable[[], float]]:
        started = time.perf_counter()

        def stop() -> Callable[[], float]:
            seconds = time.perf_counter() - started
            return lambda: seconds

        return stop


class CudaTransfer:
    """PCIe or NVLink, both ways at once."""

    def __init__(self, device: str = "cuda") -> None:
        self._device = device
        self._up, self._down = torch.cuda.Stream(), torch.cuda.Stream()

    def up(self, array: NDArray[Any]) -> Tensor:
        plain = torch.from_numpy(portable(array))
        pinned = self._pinned(plain).copy_(plain)
        computing = torch.cuda.current_stream()
        with torch.cuda.stream(self._up):
            there = pinned.to(self._device, non_blocking=True)
        computing.wait_stream(self._up)
        there.record_stream(computing)
        return there

    def down(self, made: Tensor) -> Callable[[], NDArray[Any]]:
        here = self._pinned(made)
        self._down.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._down):
            here.copy_(made, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        made.record_stream(self._down)

        def fetched() -> NDArray[Any]:
            arrived.synchronize()
            return here.numpy()

        return fetched

    def clock(self) -> Callable[[], Callable[[], float]]:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()

        def stop() -> Callable[[], float]:
            last.record()
            return lambda: first.elapsed_time(last) / 1e3

        return stop

    def _pinned(self, like: Tensor) -> Tensor:
        """Memory that the GPU reads and writes by itself; torch keeps such memory for the next one."""
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=self._device == "cuda")
