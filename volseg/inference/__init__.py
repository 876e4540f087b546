"""The torch answer to "predict this block": load, prepare, tile, batch and plan memory.

What is exported here loads torch only when it is called.
"""

from volseg.inference.hardware import WorkerInfo, choose_precision, threads_each, worker_info
from volseg.inference.memory.peak import forget_peaks, measured_peaks
from volseg.inference.memory.plan import MemoryPlan
from volseg.inference.orientations import ORIENTATIONS, Orientations
from volseg.inference.predictor import open_predictor, open_predictors
from volseg.inference.settings import Device, Engine, Load, Precision

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
    "forget_peaks",
    "measured_peaks",
    "open_predictor",
    "open_predictors",
    "threads_each",
    "worker_info",
]
