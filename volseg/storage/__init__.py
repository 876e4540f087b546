"""Volumes in and out: Zarr, HDF5, image stacks, OME-Zarr metadata, the journal and the run record."""

from volseg.storage.block_mask import OUTSIDE, BlockMask, open_mask
from volseg.storage.cache import cached
from volseg.storage.convert import convert_stack
from volseg.storage.fingerprint import source_identity
from volseg.storage.image_stack import Stack, is_stack, open_stack
from volseg.storage.journal import Journal, Mark, read_marks
from volseg.storage.memmap import ArrayFile, kept_array
from volseg.storage.paths import refuse_overlap, refuse_unwritable
from volseg.storage.readers import Readable, open_readable, open_sections
from volseg.storage.run_record import (
    FORMAT,
    NUMERICS,
    HaloPoint,
    MaskEntry,
    ModelEntry,
    RunRecord,
    Settings,
    SourceEntry,
)
from volseg.storage.statistics import pooled, sampled_slabs, volume_statistics
from volseg.storage.target import (
    UNCERTAINTY,
    Target,
    create_target,
    is_target,
    open_target,
    read_record,
    refuse_other_than_zarr,
)
from volseg.storage.zarr_volume import GREY, LABELS, Volume, open_volume

__all__ = [
    "FORMAT",
    "GREY",
    "LABELS",
    "NUMERICS",
    "OUTSIDE",
    "UNCERTAINTY",
    "ArrayFile",
    "BlockMask",
    "HaloPoint",
    "Journal",
    "Mark",
    "MaskEntry",
    "ModelEntry",
    "Readable",
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
    "kept_array",
    "open_mask",
    "open_readable",
    "open_sections",
    "open_stack",
    "open_target",
    "open_volume",
    "pooled",
    "read_marks",
    "read_record",
    "refuse_other_than_zarr",
    "refuse_overlap",
    "refuse_unwritable",
    "sampled_slabs",
    "source_identity",
    "volume_statistics",
]
