"""GPUs that this process may use, found without loading torch."""

from __future__ import annotations

import os


def visible_gpus(device: str) -> tuple[str, ...]:
    """CUDA_VISIBLE_DEVICES of each usable GPU; none if the device is `cpu`.

    >>> visible_gpus("cpu")
    ()
    """
    if device == "cpu":
        return ()
    stated = os.environ.get("CUDA_VISIBLE_DEVICES")
    if stated is not None:
        return tuple(name.strip() for name in stated.split(",") if name.strip() not in ("", "-1"))
    return tuple(str(number) for number in range(_count()))


def _count() -> int:
    import pynvml  # noqa: PLC0415 - only asked for where GPUs may be used

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()
