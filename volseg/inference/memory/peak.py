"""Peak memory of this process, as the operating system and CUDA count it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volseg.inference.settings import Device

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak_memory() -> None:
    """Restart the count of the peaks, if the system allows it."""
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: Device) -> tuple[int, int]:
    """Peaks in main memory and on the GPU, in bytes; 0 if unknown, such as main memory without Linux's /proc."""
    import torch  # noqa: PLC0415 - the driver imports this module without torch

    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    host = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
    return host, torch.cuda.max_memory_allocated() if device == "cuda" else 0
