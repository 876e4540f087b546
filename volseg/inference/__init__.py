"""The torch answer to "predict this block": load, prepare, tile, batch and plan memory.

What is exported here loads torch only when it is called.
"""

from volseg.inference.choose import TileChoice, choose_tiles
from volseg.inference.engine import Engine, open_predictor, open_predictors
from volseg.inference.facts import Device, Precision, WorkerFacts, choose_precision, threads_each, worker_facts
from volseg.inference.memory import Load, MemoryPlan
from volseg.inference.orientations import ORIENTATIONS, Orientations
from volseg.inference.peaks import forget_peaks, measured_peaks

__all__ = [
    "ORIENTATIONS",
    "Device",
    "Engine",
    "Load",
    "MemoryPlan",
    "Orientations",
    "Precision",
    "TileChoice",
    "WorkerFacts",
    "choose_precision",
    "choose_tiles",
    "forget_peaks",
    "measured_peaks",
    "open_predictor",
    "open_predictors",
    "threads_each",
    "worker_facts",
]
