"""Transfers between the host and a device.

On a GPU each direction has a stream of its own and pinned memory, so that during one pass the tiles of the next one and
the probabilities of the last one are copied:

    to device   [ tiles 2 ]    [ tiles 3 ]
    compute     [ pass 1      ][ pass 2      ][ pass 3      ]
    to host                    [ 1 ]          [ 2 ]
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

_TORCH_DTYPES = frozenset(map(np.dtype, ("uint8", "int8", "int16", "int32", "float32")))
"""Types that are copied as they are; all others become float32 on the host."""


class DeviceTransfer(Protocol):
    """Copies arrays to a device and back; used by one thread."""

    def to_device(self, array: NDArray[Any]) -> Tensor:
        """Copy an array to the device; what is computed next waits for it."""

    def to_host(self, tensor: Tensor) -> Callable[[], NDArray[Any]]:
        """Start to copy a tensor to the host; the result, called in any thread, waits for the array."""

    def start_timer(self) -> Callable[[], Callable[[], float]]:
        """Start a timer of the device's work; the result stops it, and returns a getter of the seconds.

        Call the getter after the array of a later `to_host` has arrived.
        """


def device_transfer(device: Device) -> DeviceTransfer:
    """The transfer for a device."""
    return CudaTransfer() if device == "cuda" else HostTransfer()


def torch_compatible(array: NDArray[Any]) -> NDArray[Any]:
    """Convert an array to a type, byte order and layout that torch takes on any device."""
    return np.ascontiguousarray(array if array.dtype in _TORCH_DTYPES else array.astype(np.float32))


class HostTransfer:
    """No copies: the device is the CPU."""

    def to_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(torch_compatible(array))

    def to_host(self, tensor: Tensor) -> Callable[[], NDArray[Any]]:
        return tensor.numpy

    def start_timer(self) -> Callable[[], Callable[[], float]]:
        started = time.perf_counter()

        def stop() -> Callable[[], float]:
            seconds = time.perf_counter() - started
            return lambda: seconds

        return stop


class CudaTransfer:
    """Asynchronous copies over PCIe or NVLink, in both directions at once."""

    def __init__(self, device: str = "cuda") -> None:
        self._device = device
        self._to_device, self._to_host = torch.cuda.Stream(), torch.cuda.Stream()

    def to_device(self, array: NDArray[Any]) -> Tensor:
        pageable = torch.from_numpy(torch_compatible(array))
        pinned = self._empty_pinned(pageable).copy_(pageable)
        compute = torch.cuda.current_stream()
        with torch.cuda.stream(self._to_device):
            tensor = pinned.to(self._device, non_blocking=True)
        compute.wait_stream(self._to_device)
        tensor.record_stream(compute)
        return tensor

    def to_host(self, tensor: Tensor) -> Callable[[], NDArray[Any]]:
        pinned = self._empty_pinned(tensor)
        self._to_host.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._to_host):
            pinned.copy_(tensor, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        tensor.record_stream(self._to_host)

        def wait() -> NDArray[Any]:
            copied.synchronize()
            return pinned.numpy()

        return wait

    def start_timer(self) -> Callable[[], Callable[[], float]]:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()

        def stop() -> Callable[[], float]:
            last.record()
            return lambda: first.elapsed_time(last) / 1e3

        return stop

    def _empty_pinned(self, like: Tensor) -> Tensor:
        """Allocate page-locked memory; torch caches it for later transfers."""
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=self._device == "cuda")
