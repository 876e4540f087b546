"""The most memory that a process has held, as the system counts it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volseg.inference.settings import Device

_STATUS = Path("/proc/self/status")


def forget_peaks() -> None:
    """Count from here on, where the system lets a process do so."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def measured_peaks(device: Device) -> tuple[int, int]:
    """The peaks of this process in main memory and on its GPU, in bytes; 0 where nothing tells."""
    import torch  # noqa: PLC0415 - the driver imports this module without torch

    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    host = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
    return host, torch.cuda.max_memory_allocated() if device == "cuda" else 0
