"""Dask alone: start or join a cluster, send block numbers, collect results, show progress."""

from volseg.cluster.attempt import Attempt, Failure, attempted
from volseg.cluster.connect import connect
from volseg.cluster.dask_cluster import default_workers
from volseg.cluster.executor import SLOTS, Cluster
from volseg.cluster.gpus import visible_gpus
from volseg.cluster.progress import NullProgress, Progress
from volseg.cluster.run import Outcome, run_blocks

__all__ = [
    "SLOTS",
    "Attempt",
    "Cluster",
    "Failure",
    "NullProgress",
    "Outcome",
    "Progress",
    "attempted",
    "connect",
    "default_workers",
    "run_blocks",
    "visible_gpus",
]
