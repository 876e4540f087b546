"""Reading and writing of volumes: Zarr, HDF5, image stacks, OME-Zarr metadata, journal and run record."""

from volseg.storage.axes import DEFAULT_OPTIONS, ReadOptions, parse_axes
from volseg.storage.block_mask import OUTSIDE, BlockMask, KeptBlocks, open_mask
from volseg.storage.cache import cached
from volseg.storage.census import Census, read_census, take_census
from volseg.storage.chunk_grid import Chunked
from volseg.storage.convert import conversion_target, convert_stack, target_place
from volseg.storage.expected import MetadataFault, expected_targets, metadata_faults, restore_metadata, volume_names
from volseg.storage.failure_log import FailedBlock, FailureLog, read_failures
from volseg.storage.fingerprint import source_marks, volume_fingerprint
from volseg.storage.image_stack import Stack, is_stack, open_stack
from volseg.storage.journal import Journal, journal_changed, journal_folder, lock_journal, read_marks
from volseg.storage.lock import in_use, is_locked, locked
from volseg.storage.mark_table import COMPUTED, MARK_ENTRY, SKIPPED, UNMARKED, MarkTable, journal_state, read_mark_table
from volseg.storage.marks import Mark, Written, joint_digest
from volseg.storage.memmap import MemmapFile, cached_memmap
from volseg.storage.metadata_file import read_metadata
from volseg.storage.paths import UNCERTAINTY, local_output, refuse_overlap, refuse_overwritten_inputs
from volseg.storage.place import Place, place_of
from volseg.storage.presence import NO_SHARDS, ShardCheck
from volseg.storage.publish import claim_target
from volseg.storage.readers import Readable, VolumeRef, is_zarr, open_readable, open_sections
from volseg.storage.run_record import (
    FORMAT,
    NUMERICS,
    ActivationEntry,
    HaloPoint,
    MaskEntry,
    ModelEntry,
    RecordError,
    RunRecord,
    Settings,
    SourceEntry,
    is_target,
    read_record,
)
from volseg.storage.section_folder import FolderStack
from volseg.storage.statistics import SlabStatistics, moments_in_order, slab_statistics, slabs
from volseg.storage.statistics_table import read_table, table_digest, table_of, write_table
from volseg.storage.target import Target, create_target, new_target, open_target, voxel_digest
from volseg.storage.unpacked_stack import UnpackedStack
from volseg.storage.zarr_volume import GREY, LABELS, Volume, open_volume

__all__ = [
    "COMPUTED",
    "DEFAULT_OPTIONS",
    "FORMAT",
    "GREY",
    "LABELS",
    "MARK_ENTRY",
    "NO_SHARDS",
    "NUMERICS",
    "OUTSIDE",
    "SKIPPED",
    "UNCERTAINTY",
    "UNMARKED",
    "ActivationEntry",
    "BlockMask",
    "Census",
    "Chunked",
    "FailedBlock",
    "FailureLog",
    "FolderStack",
    "HaloPoint",
    "Journal",
    "KeptBlocks",
    "Mark",
    "MarkTable",
    "MaskEntry",
    "MemmapFile",
    "MetadataFault",
    "ModelEntry",
    "Place",
    "ReadOptions",
    "Readable",
    "RecordError",
    "RunRecord",
    "Settings",
    "ShardCheck",
    "SlabStatistics",
    "SourceEntry",
    "Stack",
    "Target",
    "UnpackedStack",
    "Volume",
    "VolumeRef",
    "Written",
    "cached",
    "cached_memmap",
    "claim_target",
    "conversion_target",
    "convert_stack",
    "create_target",
    "expected_targets",
    "in_use",
    "is_locked",
    "is_stack",
    "is_target",
    "is_zarr",
    "joint_digest",
    "journal_changed",
    "journal_folder",
    "journal_state",
    "local_output",
    "lock_journal",
    "locked",
    "metadata_faults",
    "moments_in_order",
    "new_target",
    "open_mask",
    "open_readable",
    "open_sections",
    "open_stack",
    "open_target",
    "open_volume",
    "parse_axes",
    "place_of",
    "read_census",
    "read_failures",
    "read_mark_table",
    "read_marks",
    "read_metadata",
    "read_record",
    "read_table",
    "refuse_overlap",
    "refuse_overwritten_inputs",
    "restore_metadata",
    "slab_statistics",
    "slabs",
    "source_marks",
    "table_digest",
    "table_of",
    "take_census",
    "target_place",
    "volume_fingerprint",
    "volume_names",
    "voxel_digest",
    "write_table",
]
