"""The run record: all that a run froze before its first block, written into its target."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from volseg.blocks import BlockGrid, Box, Footprint, Tiling, Zyx, ZyxFloat
from volseg.errors import ResumeError


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


class ModelEntry(_Frozen):
    """Which network was run."""

    location: str
    name: str
    digest: str
    """A digest over weights and architecture."""
    footprint: Footprint
    normalization: Literal["fixed", "volume", "section"]


class Settings(_Frozen):
    """How: whatever could change a byte of the result."""

    block: Zyx
    shard: Zyx
    chunk: Zyx
    region: Box
    halo: Zyx
    tile: Zyx
    """The core of a tile, in voxels."""
    batch: int
    device: Literal["cpu", "cuda"]
    precision: Literal["float32", "bfloat16", "float16"]
    threads: int
    """Threads of one forward pass."""
    statistics: tuple[tuple[float, float], ...]
    """(mean, standard deviation): one pair, or one for each section of the volume."""


class RunRecord(_Frozen):
    """Everything that the bytes of a run depend on."""

    source: SourceEntry
    model: ModelEntry
    settings: Settings
    version: str
    """The version of volseg that froze it."""
    created: str
    """When it was frozen: UTC, ISO 8601."""

    @property
    def grid(self) -> BlockGrid:
        """The run's blocks."""
        return BlockGrid(self.source.shape, self.settings.block, self.settings.region)

    @property
    def tiling(self) -> Tiling:
        """How a block is cut into tiles."""
        return Tiling(self.model.footprint, self.settings.tile, self.settings.halo)

    @property
    def digest(self) -> str:
        """A short name for this very record."""
        return blake2b(self.model_dump_json().encode(), digest_size=8).hexdigest()

    def to_attributes(self) -> dict[str, Any]:
        """The record as Zarr attributes."""
        return self.model_dump(mode="json")


def refuse_if_different(recorded: RunRecord, asked: RunRecord, target: str) -> None:
    """Refuse to go on with a run under other weights, settings or source.

    Where a file lies and when the record was made may differ; the voxels, weights and settings may not.

    Raises:
        ResumeError: names the first difference, what was recorded and what was asked for.
    """
    pairs: list[tuple[str, object, object]] = [
        ("source", recorded.source.identity, asked.source.identity),
        ("source shape", recorded.source.shape, asked.source.shape),
        ("model", recorded.model.digest, asked.model.digest),
        ("volseg version", recorded.version, asked.version),
    ]
    pairs += [
        (name, getattr(recorded.settings, name), getattr(asked.settings, name))
        for name in type(recorded.settings).model_fields
    ]
    for name, was, now in pairs:
        if was != now:
            shown = f"{was} recorded, {now} asked for" if len(f"{was}{now}") < 200 else "they differ"
            raise ResumeError(
                f"{target} was begun with another {name} ({shown}); repeat the run's own command with --resume, "
                "or start again with --overwrite"
            )
