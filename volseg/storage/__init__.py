"""Volumes in and out: Zarr, OME-Zarr metadata, the journal and the run record."""

from volseg.storage.cache import cached
from volseg.storage.convert import convert_stack
from volseg.storage.identity import source_identity
from volseg.storage.journal import Journal, Mark, read_marks
from volseg.storage.record import HaloPoint, ModelEntry, RunRecord, Settings, SourceEntry
from volseg.storage.stacks import Stack, is_stack, open_stack
from volseg.storage.statistics import volume_statistics
from volseg.storage.target import (
    UNCERTAINTY,
    Target,
    create_target,
    is_target,
    open_target,
    read_record,
    refuse_other_than_zarr,
)
from volseg.storage.volume import GREY, LABELS, Volume, open_volume

__all__ = [
    "GREY",
    "LABELS",
    "UNCERTAINTY",
    "HaloPoint",
    "Journal",
    "Mark",
    "ModelEntry",
    "RunRecord",
    "Settings",
    "SourceEntry",
    "Stack",
    "Target",
    "Volume",
    "cached",
    "convert_stack",
    "create_target",
    "is_stack",
    "is_target",
    "open_stack",
    "open_target",
    "open_volume",
    "read_marks",
    "read_record",
    "refuse_other_than_zarr",
    "source_identity",
    "volume_statistics",
]
