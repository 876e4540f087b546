"""The run record: all that the bytes of a run depend on, written into its target before the first block."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, ValidationError, model_validator
from xxhash import xxh3_64_hexdigest

from volseg.blocks import BlockGrid, Box, Footprint, Tiling, Zyx, ZyxFloat
from volseg.config.base import FrozenModel
from volseg.errors import TargetError, redact
from volseg.registry import NORMALIZATIONS
from volseg.storage.axes import DEFAULT_OPTIONS, ReadOptions
from volseg.storage.journal import journal_runs
from volseg.storage.metadata_file import read_metadata
from volseg.text import parse_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_CHECKSUM, _FIRST_WITH_CHECKSUM = "checksum", 3
FORMAT = 3
"""Of the record's fields; raised if a change keeps older readers from reading it."""
NUMERICS = 2
"""Of the bytes that a run writes under one record; raised with any change of them."""


Location = Annotated[str, AfterValidator(redact)]
"""Absolute path or URL, without credentials."""


class RecordError(TargetError):
    """A run record that is missing, or was changed."""


class SourceMarks(FrozenModel):
    """Modification marks of the files of a source."""

    files: int
    bytes: int
    newest: str
    """Newest time of modification in ns; of an object store, a digest of all names, sizes and tags."""

    def __str__(self) -> str:
        return f"{self.files} files, {self.bytes} bytes, newest {self.newest}"


class SourceEntry(FrozenModel):
    """The source."""

    location: Location
    """Of the array."""
    shape: Zyx
    dtype: str
    voxel_nm: ZyxFloat | None
    """Voxel size (z, y, x) in nanometres; None if neither source nor user states it."""
    identity: str
    """Digest of shape, type and sampled voxels; independent of the path."""
    options: ReadOptions = DEFAULT_OPTIONS
    """What the user stated of it: its axes, a channel, and what to read for missing sections."""
    marks: SourceMarks | None = None
    """Modification marks of its files; None if its store does not list them, as over http."""
    covered: str = ""
    """What of the source a resume compares, in words."""
    empty_sections: int = 0
    """Sections without tissue, where the map is 0."""
    not_finite_sections: int = 0
    """Sections with NaN or infinity around the tissue, where the map is 0."""
    fills: tuple[float, ...] = ()
    """Grey values other than 0 that fill whole tiles of 64 x 64 and count as no tissue."""
    translation_nm: ZyxFloat | None = None
    """Translation (z, y, x) of the first voxel in nanometres; None if the voxel size is not known."""
    voxel_size_given: bool = False
    """Whether the user stated the voxel size."""
    chunks: int = 0
    """Chunks, or shards, of a Zarr that the run reads."""
    chunks_checked: int = 0
    """Of these, how many were looked for before the first block: all, or a sample where the store does not list."""
    chunks_absent: int = 0
    """Of the checked ones, how many the store lacked; they read as the fill value."""
    chunk_census: str = ""
    """Digest of which chunks were there: a file beside the journal; empty if the store does not list."""
    missing_chunks: Literal["fill", "refuse"] | None = None
    """What the user stated of missing chunks."""


class MaskEntry(FrozenModel):
    """The mask of the blocks to compute."""

    location: Location
    """Of the array."""
    shape: Zyx
    identity: str
    """Digest of shape, type and sampled voxels."""
    blocks: int
    """Number of blocks to compute."""


class HaloPoint(FrozenModel):
    """Measured error of one halo."""

    halo: Zyx
    fraction: float
    """Of voxels within one grey level of the exact result, in the worst sample."""
    max_error: float
    """Maximum difference from the exact result, in grey levels."""


class ActivationEntry(FrozenModel):
    """The largest activation of a network in the run's precision, on one tile of the volume before the first block."""

    largest: float
    layer: str
    """That has it."""
    headroom: float
    """Largest number of the precision over it."""
    kinds: tuple[str, ...]
    """Kinds of workers on which the network was compared with float32; others compare it when they join."""


class ModelEntry(FrozenModel):
    """A network, and how it is run."""

    location: Location
    name: str
    digest: str
    """Digest of weights and architecture."""
    footprint: Footprint
    normalization: Annotated[str, AfterValidator(NORMALIZATIONS.check)]
    halo: Zyx
    halo_curve: tuple[HaloPoint, ...] = ()
    """Measurements by which the halo was chosen; empty if it was given."""
    tile: Zyx
    """The core of a tile, in voxels."""
    batch: int
    """Tiles per forward pass."""
    compiled: bool = False
    """Whether the network runs through torch.compile, on a GPU."""
    precision_loss: tuple[float, float] | None = None
    """Fraction of voxels within one grey level of float32, and maximum difference from it, measured on samples."""
    activations: ActivationEntry | None = None
    """None if memory did not suffice to read them."""
    kvoxel_s: float = 0.0
    """Thousands of voxels per second of one worker with this tile; 0 if it was not measured."""
    statistics: str
    """Digest of its constants, (mean, standard deviation) for the volume or each section: a file beside the journal."""

    @property
    def tiling(self) -> Tiling:
        """How this network cuts a block into tiles."""
        return Tiling(self.footprint, self.tile, self.halo)


class Settings(FrozenModel):
    """Settings of the run that could change a byte of the result."""

    block: Zyx
    shard: Zyx
    chunk: Zyx
    region: Box
    device: Literal["cpu", "cuda"]
    precision: Literal["float32", "bfloat16", "float16"]
    threads: int
    """Threads of one forward pass."""
    orientations: Literal["one", "flips", "all"] = "one"
    """Orientations in which each tile is predicted, and which are averaged."""
    classes: tuple[str, ...] = ("membrane",)
    """Classes written: one, or several along a channel axis."""
    halo_tolerance: tuple[float, float] | None = None
    """Fraction of voxels within one grey level and maximum error that a measured halo had to keep; None if given."""
    uncertainty: bool = False
    """Whether the standard deviation of the estimates is written too."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Settings:
        sizes = tuple(zip(self.block, self.shard, self.chunk, strict=True))
        if any(min(some) < 1 for some in sizes) or any(b % s or s % c for b, s, c in sizes):
            raise ValueError("blocks must consist of whole shards, and shards of whole chunks")
        return self


class RunRecord(FrozenModel):
    """Everything that the bytes of a run depend on."""

    format: int
    """`FORMAT` of the volseg that wrote it."""
    numerics: int
    """`NUMERICS` of the volseg that wrote it."""
    source: SourceEntry
    models: tuple[ModelEntry, ...]
    """The networks whose estimates are averaged, in this order."""
    settings: Settings
    version: str
    """Of volseg."""
    torch: str
    """Version of the workers' torch."""
    created: str
    """UTC, ISO 8601."""
    mask: MaskEntry | None = None
    """Blocks outside it are not part of the run."""

    @property
    def grid(self) -> BlockGrid:
        """The run's blocks."""
        return BlockGrid(self.source.shape, self.settings.block, self.settings.region)

    @property
    def form(self) -> dict[str, Any]:
        """Shape, type, shards and chunks of the target's array, with a channel axis for several classes."""
        settings, classes = self.settings, len(self.settings.classes)
        channels, ones = ((classes,), (1,)) if classes > 1 else ((), ())
        shards, chunks = ones + settings.shard, ones + settings.chunk
        return {"shape": channels + self.source.shape, "type": "uint8", "shards": shards, "chunks": chunks}

    @property
    def digest(self) -> str:
        """Digest of this record."""
        return blake2b(self.model_dump_json().encode(), digest_size=8).hexdigest()

    def to_attributes(self) -> dict[str, Any]:
        """The record as Zarr attributes, with a checksum of them."""
        attributes = self.model_dump(mode="json")
        return attributes | {_CHECKSUM: _checksum(attributes)}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> RunRecord:
        """The record of Zarr attributes.

        Raises:
            ValueError: they are no record, or were changed since they were written.
        """
        values = dict(attributes)
        has_checksum = _CHECKSUM in values or values.get("format", 1) >= _FIRST_WITH_CHECKSUM
        if has_checksum and values.pop(_CHECKSUM, None) != _checksum(values):
            raise ValueError("it was changed since it was written")
        return cls.model_validate_json(json.dumps(values))


def _checksum(attributes: Mapping[str, Any]) -> str:
    return xxh3_64_hexdigest(json.dumps(attributes, sort_keys=True, separators=(",", ":")).encode())


def is_target(path: Path) -> bool:
    """Whether a path is the target of a run."""
    try:
        return "volseg" in parse_object(read_metadata(path / "zarr.json"))["attributes"]
    except (OSError, KeyError, TypeError, ValueError):
        return False


def read_record(path: Path) -> RunRecord:
    """Read the run record of a target.

    Raises:
        RecordError: the path is not a target, or the record was changed, or is that of another map.
        TargetError: another version of volseg wrote it.
    """
    record = _parse_record(path)
    if others := journal_runs(path / "0" / ".volseg") - {record.digest}:
        raise RecordError(
            f"the run record in {path} is that of another map: its journal is of the run {others.pop()}; put the "
            "map's own zarr.json back, or start again with --overwrite"
        )
    return record


def _parse_record(path: Path) -> RunRecord:
    try:
        attributes = parse_object(read_metadata(path / "zarr.json"))["attributes"]
        return RunRecord.from_attributes(attributes["volseg"])
    except (OSError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(f"{path} has no run record; name the target of a `volseg predict`") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise TargetError(
            f"the run record in {path} cannot be read ({'.'.join(map(str, first['loc']))}: {first['msg']}); "
            "use the version of volseg that wrote it, or start again with --overwrite"
        ) from error
    except ValueError as error:
        raise RecordError(
            f"the run record in {path} cannot be read: {error}; undo that, or start again with --overwrite"
        ) from error
