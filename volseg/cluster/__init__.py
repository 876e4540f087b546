"""Executors: start or join a cluster, send block numbers, collect results. Dask is used here only."""

from volseg.cluster.attempt import Attempt, Failure
from volseg.cluster.bookkeeping import mark_of, take_failure
from volseg.cluster.connect import check_cluster, connect
from volseg.cluster.executor import SLOTS, Executor
from volseg.cluster.gpus import visible_gpus
from volseg.cluster.job_queue import BlockTask
from volseg.cluster.order import BlockOrder
from volseg.cluster.policy import MIN_FAILED, Deadline, FailurePolicy
from volseg.cluster.progress import NullProgress, Progress
from volseg.cluster.run import Outcome, run_blocks
from volseg.cluster.serial import SerialExecutor
from volseg.cluster.versions import package_versions, refuse_other_versions

__all__ = [
    "MIN_FAILED",
    "SLOTS",
    "Attempt",
    "BlockOrder",
    "BlockTask",
    "Deadline",
    "Executor",
    "Failure",
    "FailurePolicy",
    "NullProgress",
    "Outcome",
    "Progress",
    "SerialExecutor",
    "check_cluster",
    "connect",
    "mark_of",
    "package_versions",
    "refuse_other_versions",
    "run_blocks",
    "take_failure",
    "visible_gpus",
]
