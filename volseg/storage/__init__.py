"""Reading and writing of volumes: Zarr, HDF5, image stacks, OME-Zarr metadata, journal and run record."""

from volseg.storage.axes import DEFAULT_OPTIONS, ReadOptions, parse_axes
from volseg.storage.block_mask import OUTSIDE, BlockMask, KeptBlocks, open_mask
from volseg.storage.block_states import LACKING, MARKED, WAS_EMPTY, BlockStates
from volseg.storage.cache import cached
from volseg.storage.census import Census, read_census, take_census
from volseg.storage.chunk_grid import Chunked
from volseg.storage.chunk_rule import (
    CheckedSource,
    ChunkRule,
    Confirmed,
    MissingChunks,
    census_to_take,
    recorded_census,
    rule_of,
)
from volseg.storage.create import claim_output, create_target, new_target, target_exists
from volseg.storage.durable import write_whole
from volseg.storage.expected import MetadataFault, expected_pyramid, metadata_faults, restore_metadata
from volseg.storage.failure_log import FailedBlock, FailureLog, read_failures
from volseg.storage.fingerprint import source_marks, volume_fingerprint
from volseg.storage.image_stack import Stack, is_stack, open_stack
from volseg.storage.journal import (
    Journal,
    journal_changed,
    journal_folder,
    lock_journal,
    read_mark_batches,
    read_marks,
)
from volseg.storage.journal_summary import JournalReader, SummaryWriter
from volseg.storage.lease_watch import LeaseWatch, lease_watch
from volseg.storage.lock import in_use, is_locked, locked
from volseg.storage.mark_table import COMPUTED, MARK_ENTRY, SKIPPED, UNMARKED, MarkTable, journal_state, read_mark_table
from volseg.storage.marks import Mark, Written, joint_digest
from volseg.storage.memmap import MemmapFile, cached_memmap
from volseg.storage.metadata_file import read_metadata
from volseg.storage.object_client import is_object_url
from volseg.storage.object_path import ObjectPath, TargetPath, target_path
from volseg.storage.object_range import ObjectRange, read_object_range
from volseg.storage.object_target import delete_objects, open_target
from volseg.storage.part_lock import creation_turn, is_running, lock_part, parts_running
from volseg.storage.paths import UNCERTAINTY, local_output, refuse_overlap, refuse_overwritten_inputs
from volseg.storage.place import Place, place_of
from volseg.storage.presence import ShardCheck
from volseg.storage.publish import claim_target
from volseg.storage.pyramid import Pyramid, open_pyramid, volume_names
from volseg.storage.readers import Readable, is_zarr, open_readable, open_sections
from volseg.storage.record_entries import (
    ActivationEntry,
    HaloPoint,
    KindTile,
    MapEntry,
    MaskEntry,
    ModelEntry,
    Settings,
    SourceEntry,
)
from volseg.storage.repeats import REPEATS
from volseg.storage.resampled import ResampledVolume, VolumeRef, read_bytes_per_voxel, resampling_of, stored_volume
from volseg.storage.run_record import FORMAT, NUMERICS, RecordError, RunRecord, is_target, read_record
from volseg.storage.section_folder import FolderStack
from volseg.storage.size_table import NO_SHARDS, size_table
from volseg.storage.statistics import SlabStatistics, moments_in_order, slab_statistics, slabs
from volseg.storage.statistics_table import read_table, table_digest, table_of, write_table
from volseg.storage.target import Target, voxel_digest
from volseg.storage.unpacked_stack import UnpackedStack
from volseg.storage.usage_log import KindUsage, StartUsage, UsageLog, read_usage, total_usage
from volseg.storage.zarr_volume import GREY, LABELS, Volume, open_volume

__all__ = [
    "COMPUTED",
    "DEFAULT_OPTIONS",
    "FORMAT",
    "GREY",
    "LABELS",
    "LACKING",
    "MARKED",
    "MARK_ENTRY",
    "NO_SHARDS",
    "NUMERICS",
    "OUTSIDE",
    "REPEATS",
    "SKIPPED",
    "UNCERTAINTY",
    "UNMARKED",
    "WAS_EMPTY",
    "ActivationEntry",
    "BlockMask",
    "BlockStates",
    "Census",
    "CheckedSource",
    "ChunkRule",
    "Chunked",
    "Confirmed",
    "FailedBlock",
    "FailureLog",
    "FolderStack",
    "HaloPoint",
    "Journal",
    "JournalReader",
    "KeptBlocks",
    "KindTile",
    "KindUsage",
    "LeaseWatch",
    "MapEntry",
    "Mark",
    "MarkTable",
    "MaskEntry",
    "MemmapFile",
    "MetadataFault",
    "MissingChunks",
    "ModelEntry",
    "ObjectPath",
    "ObjectRange",
    "Place",
    "Pyramid",
    "ReadOptions",
    "Readable",
    "RecordError",
    "ResampledVolume",
    "RunRecord",
    "Settings",
    "ShardCheck",
    "SlabStatistics",
    "SourceEntry",
    "Stack",
    "StartUsage",
    "SummaryWriter",
    "Target",
    "TargetPath",
    "UnpackedStack",
    "UsageLog",
    "Volume",
    "VolumeRef",
    "Written",
    "cached",
    "cached_memmap",
    "census_to_take",
    "claim_output",
    "claim_target",
    "create_target",
    "creation_turn",
    "delete_objects",
    "expected_pyramid",
    "in_use",
    "is_locked",
    "is_object_url",
    "is_running",
    "is_stack",
    "is_target",
    "is_zarr",
    "joint_digest",
    "journal_changed",
    "journal_folder",
    "journal_state",
    "lease_watch",
    "local_output",
    "lock_journal",
    "lock_part",
    "locked",
    "metadata_faults",
    "moments_in_order",
    "new_target",
    "open_mask",
    "open_pyramid",
    "open_readable",
    "open_sections",
    "open_stack",
    "open_target",
    "open_volume",
    "parse_axes",
    "parts_running",
    "place_of",
    "read_bytes_per_voxel",
    "read_census",
    "read_failures",
    "read_mark_batches",
    "read_mark_table",
    "read_marks",
    "read_metadata",
    "read_object_range",
    "read_record",
    "read_table",
    "read_usage",
    "recorded_census",
    "refuse_overlap",
    "refuse_overwritten_inputs",
    "resampling_of",
    "restore_metadata",
    "rule_of",
    "size_table",
    "slab_statistics",
    "slabs",
    "source_marks",
    "stored_volume",
    "table_digest",
    "table_of",
    "take_census",
    "target_exists",
    "target_path",
    "total_usage",
    "volume_fingerprint",
    "volume_names",
    "voxel_digest",
    "write_table",
    "write_whole",
]
