"""Reading and writing of volumes: Zarr, HDF5, image stacks, OME-Zarr metadata, journal and run record."""

from volseg.storage.block_mask import OUTSIDE, BlockMask, open_mask
from volseg.storage.cache import cached
from volseg.storage.convert import convert_stack, target_place
from volseg.storage.fingerprint import volume_fingerprint
from volseg.storage.image_stack import Stack, is_stack, open_stack
from volseg.storage.journal import Journal, Mark, read_marks
from volseg.storage.memmap import MemmapFile, cached_memmap
from volseg.storage.paths import refuse_overlap, refuse_unwritable
from volseg.storage.place import Place, place_of
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
from volseg.storage.statistics import pooled_moments, sample_slabs, volume_statistics
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
    "Mark",
    "MaskEntry",
    "MemmapFile",
    "ModelEntry",
    "Place",
    "Readable",
    "RunRecord",
    "Settings",
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
    "open_mask",
    "open_readable",
    "open_sections",
    "open_stack",
    "open_target",
    "open_volume",
    "place_of",
    "pooled_moments",
    "read_marks",
    "read_record",
    "refuse_non_zarr",
    "refuse_overlap",
    "refuse_unwritable",
    "sample_slabs",
    "target_place",
    "volume_fingerprint",
    "volume_statistics",
]
