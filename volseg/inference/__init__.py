"""Prediction of blocks with torch: load, optimise, tile, batch, and plan memory.

Importing these names does not load torch; calling some of them does.
"""

from volseg.inference.hardware import (
    WorkerInfo,
    choose_precision,
    device_here,
    device_kind,
    memory_of_each,
    threads_per_worker,
    worker_info,
    worker_kind,
)
from volseg.inference.memory.peak import peak_memory, reset_peak_memory
from volseg.inference.memory.plan import MemoryPlan
from volseg.inference.orientations import ORIENTATIONS
from volseg.inference.predictor import open_predictor, open_predictors
from volseg.inference.settings import Device, Engine, Load, Orientations, Precision

__all__ = [
    "ORIENTATIONS",
    "Device",
    "Engine",
    "Load",
    "MemoryPlan",
    "Orientations",
    "Precision",
    "WorkerInfo",
    "choose_precision",
    "device_here",
    "device_kind",
    "memory_of_each",
    "open_predictor",
    "open_predictors",
    "peak_memory",
    "reset_peak_memory",
    "threads_per_worker",
    "worker_info",
    "worker_kind",
]
