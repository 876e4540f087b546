"""Dask alone: start or join a cluster, send block numbers, collect results, show progress."""

from volseg.cluster.attempt import Attempt, Failure, attempted
from volseg.cluster.connect import SLOTS, Cluster, connect, default_workers
from volseg.cluster.gpus import visible_gpus
from volseg.cluster.progress import Progress, Quiet, Shown, sections_told
from volseg.cluster.run import Outcome, run_blocks

__all__ = [
    "SLOTS",
    "Attempt",
    "Cluster",
    "Failure",
    "Outcome",
    "Progress",
    "Quiet",
    "Shown",
    "attempted",
    "connect",
    "default_workers",
    "run_blocks",
    "sections_told",
    "visible_gpus",
]
