"""The way of one block and the plan of a run, over Protocols: no torch, no Dask."""

from volseg.pipeline.block import (
    EMPTY,
    FALLBACK,
    BlockPipeline,
    BlockReport,
    EnsembleMember,
    Estimate,
    Predictor,
    Sink,
    Source,
    process_block,
)
from volseg.pipeline.plan import Plan, PlanRequest, plan_run

__all__ = [
    "EMPTY",
    "FALLBACK",
    "BlockPipeline",
    "BlockReport",
    "EnsembleMember",
    "Estimate",
    "Plan",
    "PlanRequest",
    "Predictor",
    "Sink",
    "Source",
    "plan_run",
    "process_block",
]
