"""The torch answer to "predict this block": load, prepare, tile, batch and plan memory.

What is exported here loads torch only when it is called.
"""

from volseg.inference.choose import TileChoice, choose_tile
from volseg.inference.engine import Engine, open_predictor
from volseg.inference.facts import Device, Precision, WorkerFacts, choose_precision, threads_each, worker_facts
from volseg.inference.memory import Load, MemoryPlan

__all__ = [
    "Device",
    "Engine",
    "Load",
    "MemoryPlan",
    "Precision",
    "TileChoice",
    "WorkerFacts",
    "choose_precision",
    "choose_tile",
    "open_predictor",
    "threads_each",
    "worker_facts",
]
