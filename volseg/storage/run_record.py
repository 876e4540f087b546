"""The run record: all that a run froze before its first block, written into its target."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from volseg.blocks import BlockGrid, Box, Footprint, Tiling, Zyx, ZyxFloat


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceEntry(_Frozen):
    """Which volume was read."""

    location: str
    """An absolute path or a URL, down to the array."""
    shape: Zyx
    dtype: str
    voxel_nm: ZyxFloat | None
    identity: str
    """A digest of shape, type and sampled voxels: the same volume under another path keeps it."""


class MaskEntry(_Frozen):
    """Which mask said where there is something to compute."""

    location: str
    """An absolute path or a URL, down to the array."""
    shape: Zyx
    identity: str
    """A digest of shape, type and sampled voxels, as a source's."""
    blocks: int
    """How many of the run's blocks it leaves to compute."""


class HaloPoint(_Frozen):
    """What a halo was measured to cost and to spoil."""

    halo: Zyx
    share: float
    """Of voxels that stay within one grey level of the exact result, in the sample where they are fewest."""
    greatest: float
    """Difference from the exact result, in grey levels."""


class ModelEntry(_Frozen):
    """Which network was run, and how."""

    location: str
    name: str
    digest: str
    """A digest over weights and architecture."""
    footprint: Footprint
    normalization: Literal["fixed", "volume", "section"]
    halo: Zyx
    halo_curve: tuple[HaloPoint, ...] = ()
    """What the halo was chosen by, where it was measured."""
    tile: Zyx
    """The core of a tile, in voxels."""
    batch: int
    """Tiles a forward pass."""
    compiled: bool = False
    """Whether torch.compile makes the network, on a GPU; it was measured to pay."""
    rounding: tuple[float, float] | None = None
    """Share of voxels within one grey level of float32, and greatest difference from it, as measured on samples."""
    kvoxel_s: float = 0.0
    """Thousands of voxels a second that one worker was measured to make with this tile; 0 where none was measured."""
    statistics: tuple[tuple[float, float], ...]
    """(mean, standard deviation): one pair, or one for each section of the volume."""

    @property
    def tiling(self) -> Tiling:
        """How a block is cut into tiles for this network."""
        return Tiling(self.footprint, self.tile, self.halo)


class Settings(_Frozen):
    """How: whatever could change a byte of the result."""

    block: Zyx
    shard: Zyx
    chunk: Zyx
    region: Box
    device: Literal["cpu", "cuda"]
    precision: Literal["float32", "bfloat16", "float16"]
    threads: int
    """Threads of one forward pass."""
    orientations: Literal["one", "flips", "all"] = "one"
    """That each tile is seen in and averaged over."""
    classes: tuple[str, ...] = ("membrane",)
    """What is written: one class, or several along a channel axis."""
    halo_tolerance: tuple[float, float] | None = None
    """Share of voxels within one grey level and greatest difference that a measured halo was chosen by."""
    uncertainty: bool = False
    """Whether the standard deviation of the estimates is written too."""


class RunRecord(_Frozen):
    """Everything that the bytes of a run depend on."""

    source: SourceEntry
    models: tuple[ModelEntry, ...]
    """The networks whose estimates are averaged, in this order."""
    settings: Settings
    version: str
    """The version of volseg that froze it."""
    created: str
    """When it was frozen: UTC, ISO 8601."""
    mask: MaskEntry | None = None
    """Blocks outside it are not part of the run."""

    @property
    def grid(self) -> BlockGrid:
        """The run's blocks."""
        return BlockGrid(self.source.shape, self.settings.block, self.settings.region)

    @property
    def digest(self) -> str:
        """A short name for this very record."""
        return blake2b(self.model_dump_json().encode(), digest_size=8).hexdigest()

    def to_attributes(self) -> dict[str, Any]:
        """The record as Zarr attributes."""
        return self.model_dump(mode="json")
