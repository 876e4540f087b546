"""Options of a conversion."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any, Literal, TypedDict

from pydantic import Field, field_validator

from volseg.blocks import MAX_LEVELS, Zyx, ZyxFloat, is_voxel_size
from volseg.config.base import FrozenModel
from volseg.config.cluster import Cluster, ClusterField

Dtype = Literal["uint8", "uint16", "uint32", "uint64", "int16", "int32", "int64", "float32", "bool"]


class ConvertOptions(TypedDict, total=False):
    """Options of `volseg.convert`, named as on the command line."""

    voxel_size: ZyxFloat | None
    axes: str | None
    channel: str | int | None
    missing: Literal["refuse", "blank", "nearest"] | None
    missing_chunks: Literal["fill", "refuse"] | None
    scale_level: int | None
    roi: str | None
    resample: ZyxFloat | None
    dtype: Dtype | None
    range: tuple[float, float] | None
    format: str | None
    chunk: Zyx | None
    shard: Zyx | None
    levels: int | Literal["auto"] | None
    no_shards: bool
    cluster: Cluster
    workers: int | None
    tls: str | None
    resume: bool
    overwrite: bool


class ConvertConfig(FrozenModel):
    """One conversion."""

    source: str
    target: str
    voxel_size: ZyxFloat | None = None
    """(z, y, x) in nanometres; None: as the source states."""
    axes: str | None = None
    """Names of the source's last axes in their order, such as `x,y,z`; None: those of its metadata."""
    channel: str | int | None = None
    """Of the source, by name or number."""
    missing: Literal["refuse", "blank", "nearest"] | None = None
    """What to read for numbers that a folder of sections lacks; None: they are refused."""
    missing_chunks: Literal["fill", "refuse"] | None = None
    """What to do about chunks that a Zarr lacks; None: they are filled, and where the store does not list counted."""
    scale_level: int | None = Field(default=None, ge=0)
    roi: str | None = None
    resample: ZyxFloat | None = None
    """Voxel size (z, y, x) of the target in nanometres; None: that of the source."""
    dtype: Dtype | None = None
    """Type of the target; None: that of the source."""
    range: tuple[float, float] | None = None
    """Values that become the smallest and the largest of the type; None: those of the source's type."""
    format: str | None = None
    """Name of a format; None: as the target's name says."""
    chunk: Zyx | None = None
    shard: Zyx | None = None
    no_shards: bool = False
    """A file for each chunk, for readers that know no shards."""
    levels: int | None = Field(default=None, ge=0, le=MAX_LEVELS)
    """Number of coarser levels; None: until the coarsest has at most 512 voxels along each axis."""
    cluster: ClusterField = None
    """None: local workers, or this process for a small volume."""
    workers: int | None = Field(default=None, ge=1, le=4096)
    tls: str | None = None
    """Folder of `ca.pem`, `cert.pem` and `key.pem`, for a `tls://` address."""
    resume: bool = False
    overwrite: bool = False

    @field_validator("source", "target", "tls", mode="before")
    @classmethod
    def _path_as_text(cls, value: Any) -> Any:
        return fspath(value) if isinstance(value, PathLike) else value

    @field_validator("voxel_size", "resample")
    @classmethod
    def _at_least_an_angstrom(cls, value: ZyxFloat | None) -> ZyxFloat | None:
        if value is not None and not is_voxel_size(value):
            raise ValueError("each size must be 0.1 nm at least")
        return value

    @field_validator("chunk", "shard")
    @classmethod
    def _at_least_one_voxel(cls, value: Zyx | None) -> Zyx | None:
        if value is not None and min(value) < 1:
            raise ValueError("each number must be at least 1")
        return value

    @field_validator("levels", mode="before")
    @classmethod
    def _auto_as_none(cls, value: Any) -> Any:
        return None if value == "auto" else value

    @field_validator("axes", mode="before")
    @classmethod
    def _axes_as_text(cls, value: Any) -> Any:
        return ",".join(value) if isinstance(value, tuple | list) else value
