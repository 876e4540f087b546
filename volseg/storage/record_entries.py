"""The parts of a run record."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator

from volseg.blocks import Box, Footprint, Tiling, Zyx, ZyxFloat
from volseg.config.base import FrozenModel
from volseg.errors import redact
from volseg.ops import Resampling
from volseg.registry import NORMALIZATIONS
from volseg.storage.axes import DEFAULT_OPTIONS, ReadOptions

Location = Annotated[str, AfterValidator(redact)]
"""Absolute path or URL, without credentials."""


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
    place_without_unit: tuple[ZyxFloat, ZyxFloat] | None = None
    """Voxel size and translation in the source's own unit, if that is not known; None for 1 and 0."""
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
    resampling: Resampling | None = None
    """From the stored voxels to those that the run reads, whose shape, size and place are here; None if they are these.
    """


class MapEntry(FrozenModel):
    """A map whose voxels are not those that the networks see."""

    shape: Zyx
    voxel_nm: ZyxFloat
    translation_nm: ZyxFloat
    resampling: Resampling
    """From the networks' voxels to these."""


class MaskEntry(FrozenModel):
    """The mask of the blocks to compute."""

    location: Location
    """Of the array."""
    shape: Zyx
    identity: str
    """Digest of shape, type and sampled voxels."""
    blocks: int
    """Number of blocks to compute."""
    coarser_blocks: int = 0
    """Number of blocks of coarser levels that are made of them."""


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


class KindTile(FrozenModel):
    """How workers of a kind run a network."""

    kind: str
    """Name of the GPU, or `cpu` and its instruction set."""
    tile: Zyx
    batch: int
    compiled: bool = False
    kvoxel_s: float = 0.0


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
    kinds: tuple[KindTile, ...] = ()
    """How each kind of worker runs it, if the run began with several; others, that joined later, run it as above."""
    statistics: str
    """Digest of its constants, (mean, standard deviation) for the volume or each section: a file beside the journal."""

    def of_kind(self, kind: str) -> ModelEntry:
        """This entry with tile, batch and speed of a kind of worker."""
        own = next((each for each in self.kinds if each.kind == kind), None)
        return self if own is None else self.model_copy(update=own.model_dump(exclude={"kind"}))

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
    device: Literal["cpu", "cuda", "any"]
    """`any`: workers with a GPU use it, others their CPU."""
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
    levels: tuple[Zyx, ...] = ()
    """Factors of the coarser levels, each to the next finer one."""
    map: MapEntry | None = None
    """None if the map has the voxels that the networks see; else block, shard, chunk and region are in its voxels."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Settings:
        sizes = tuple(zip(self.block, self.shard, self.chunk, strict=True))
        if any(min(some) < 1 for some in sizes) or any(b % s or s % c for b, s, c in sizes):
            raise ValueError("blocks must consist of whole shards, and shards of whole chunks")
        return self
