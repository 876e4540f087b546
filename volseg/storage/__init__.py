"""Reading and writing of volumes: Zarr, HDF5, image stacks, OME-Zarr metadata, journal and run record."""

from volseg.storage.block_mask import OUTSIDE, BlockMask, KeptBlocks, open_mask
from volseg.storage.cache import cached
from volseg.storage.convert import convert_stack
from volseg.storage.fingerprint import volume_fingerprint
from volseg.storage.image_stack import Stack, is_stack, open_stack
from volseg.storage.journal import Journal, Mark, read_marks
from volseg.storage.memmap import MemmapFile, cached_memmap
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
from volseg.storage.statistics import SlabStatistics, moments_in_order, slab_statistics, slabs
from volseg.storage.statistics_table import read_table, table_digest, table_of, write_table
from volseg.storage.target import (
    UNCERTAINTY,
    Target,
    create_target,
    is_target,
    open_target,
    read_record,
    refuse_non_zarr,
)
from volseg.storage.zarr_volume import GREY, LABELS, Volume, open_volume

__all__ = [
    "FORMAT",
    "GREY",
    "LABELS",
    "NUMERICS",
    "OUTSIDE",
    "UNCERTAINTY",
    "BlockMask",
    "HaloPoint",
    "Journal",
    "KeptBlocks",
    "Mark",
    "MaskEntry",
    "MemmapFile",
    "ModelEntry",
    "Readable",
    "RunRecord",
    "Settings",
    "SlabStatistics",
    "SourceEntry",
    "Stack",
    "Target",
    "Volume",
    "cached",
    "cached_memmap",
    "convert_stack",
    "create_target",
    "is_stack",
    "is_target",
    "moments_in_order",
    "open_mask",
    "open_readable",
    "open_sections",
    "open_stack",
    "open_target",
    "open_volume",
    "read_marks",
    "read_record",
    "read_table",
    "refuse_non_zarr",
    "refuse_overlap",
    "refuse_unwritable",
    "slab_statistics",
    "slabs",
    "table_digest",
    "table_of",
    "volume_fingerprint",
    "write_table",
]
