"""One block's journey and the plan of a run, over Protocols: no torch, no Dask."""

from volseg.pipeline.block import EMPTY, BlockReport, Journey, Member, Predictor, Sink, Source, process_block
from volseg.pipeline.plan import Plan, Request, plan_run

__all__ = [
    "EMPTY",
    "BlockReport",
    "Journey",
    "Member",
    "Plan",
    "Predictor",
    "Request",
    "Sink",
    "Source",
    "plan_run",
    "process_block",
]
