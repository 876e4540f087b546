"""Options of a prediction."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any, Literal, TypedDict

from pydantic import Field, field_validator

from volseg.blocks import MAX_LEVELS, Part, Zyx, ZyxFloat, is_voxel_size, parse_part
from volseg.config.base import FrozenModel
from volseg.config.cluster import Cluster, ClusterField
from volseg.config.tolerance import Tolerance


class PredictOptions(TypedDict, total=False):
    """Options of `volseg.predict`, named as on the command line."""

    block: Zyx | None
    halo: Literal["auto", "exact"] | Zyx
    halo_tolerance: Tolerance | tuple[float, float]
    orientations: Literal["one", "flips", "all"]
    classes: str
    uncertainty: bool
    tile: Zyx | None
    scale_level: int | None
    axes: str | None
    channel: str | int | None
    missing: Literal["refuse", "blank", "nearest"] | None
    missing_chunks: Literal["fill", "refuse"] | None
    shard: Zyx | None
    chunk: Zyx | None
    levels: int | Literal["auto"] | None
    roi: str | None
    mask: str | None
    voxel_size: ZyxFloat | None
    ignore_voxel_size: bool
    at_model_size: Literal["model", "source"] | None
    device: Literal["auto", "any", "cpu", "cuda"]
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    cluster: Cluster
    workers: int | None
    tls: str | None
    part: str | Part | None
    max_failed: int | None
    block_timeout: float | None
    resume: bool
    overwrite: bool


class PredictConfig(FrozenModel):
    """One prediction run."""

    source: str
    target: str
    model: tuple[str, ...] = Field(min_length=1)
    """Files or names; the estimates of several models are averaged."""
    block: Zyx | None = None
    halo: Literal["auto", "exact"] | Zyx = "auto"
    halo_tolerance: Tolerance | None = None
    orientations: Literal["one", "flips", "all"] = "one"
    classes: str = Field(default="auto", min_length=1)
    """`auto`, `all`, or names separated by commas."""
    uncertainty: bool = False
    tile: Zyx | None = None
    """Output voxels of one forward pass; None: the fastest that fits the memory."""
    scale_level: int | None = Field(default=None, ge=0)
    axes: str | None = None
    """Names of the source's last axes in their order, such as `x,y,z`; None: those of its metadata."""
    channel: str | int | None = None
    """Of the source, by name or number."""
    missing: Literal["refuse", "blank", "nearest"] | None = None
    """What to read for numbers that a folder of sections lacks; None: they are refused."""
    missing_chunks: Literal["fill", "refuse"] | None = None
    """What to do about chunks that a Zarr lacks; None: they are filled, and where the store does not list counted."""
    shard: Zyx | None = None
    chunk: Zyx | None = None
    levels: int | None = Field(default=None, ge=0, le=MAX_LEVELS)
    """Number of coarser levels; None: until the coarsest has at most 512 voxels along each axis."""
    roi: str | None = None
    mask: str | None = None
    """Volume; blocks in which it is zero are skipped."""
    voxel_size: ZyxFloat | None = None
    """(z, y, x) in nanometres; None: as the source states."""
    ignore_voxel_size: bool = False
    at_model_size: Literal["model", "source"] | None = None
    """Size of the map's voxels if the source is read at the model's; None: the source is read as it is."""
    device: Literal["auto", "any", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    cluster: ClusterField = "local"
    workers: int | None = Field(default=None, ge=1, le=4096)
    tls: str | None = None
    """Folder of `ca.pem`, `cert.pem` and `key.pem`, for a `tls://` address."""
    part: Part | None = None
    """The part of the blocks that this driver computes; None: all."""
    max_failed: int | None = Field(default=None, ge=0)
    """Blocks that may fail before the run ends; None: 16, or 1 % of the blocks."""
    block_timeout: float | None = Field(default=None, gt=0, le=1e6)
    """Seconds after which a block is sent to another worker; None: 10 times the mean of the run, at least 120."""
    resume: bool = False
    overwrite: bool = False

    @field_validator("source", "target", "mask", "tls", mode="before")
    @classmethod
    def _path_as_text(cls, value: Any) -> Any:
        return fspath(value) if isinstance(value, PathLike) else value

    @field_validator("part", mode="before")
    @classmethod
    def _part_of_text(cls, value: Any) -> Any:
        return parse_part(value) if isinstance(value, str) else value

    @field_validator("levels", mode="before")
    @classmethod
    def _auto_as_none(cls, value: Any) -> Any:
        return None if value == "auto" else value

    @field_validator("voxel_size")
    @classmethod
    def _at_least_an_angstrom(cls, value: ZyxFloat | None) -> ZyxFloat | None:
        if value is not None and not is_voxel_size(value):
            raise ValueError("each size must be 0.1 nm at least")
        return value

    @field_validator("model", mode="before")
    @classmethod
    def _one_as_tuple(cls, value: Any) -> Any:
        models = [value] if isinstance(value, str | PathLike) else value
        return [fspath(model) if isinstance(model, PathLike) else model for model in models]

    @field_validator("classes", mode="before")
    @classmethod
    def _names_as_text(cls, value: Any) -> Any:
        return ",".join(value) if isinstance(value, tuple | list) else value

    @field_validator("axes", mode="before")
    @classmethod
    def _axes_as_text(cls, value: Any) -> Any:
        return ",".join(value) if isinstance(value, tuple | list) else value

    @field_validator("halo_tolerance", mode="before")
    @classmethod
    def _pair_as_tolerance(cls, value: Any) -> Any:
        """Accept (percent, grey levels), as on the command line."""
        if isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(v, int | float) for v in value):
            return Tolerance(value[0] / 100, value[1])
        return value
