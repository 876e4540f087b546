"""Options of coarser levels for an OME-Zarr."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any, Literal, TypedDict

from pydantic import Field, field_validator

from volseg.blocks import MAX_LEVELS
from volseg.config.base import FrozenModel
from volseg.config.cluster import Cluster, ClusterField


class PyramidOptions(TypedDict, total=False):
    """Options of `volseg.pyramid`, named as on the command line."""

    levels: int | Literal["auto"] | None
    labels: bool
    missing_chunks: Literal["fill", "refuse"] | None
    cluster: Cluster
    workers: int | None
    tls: str | None
    resume: bool
    check: bool
    overwrite: bool


class PyramidConfig(FrozenModel):
    """Coarser levels of one image."""

    target: str
    levels: int | None = Field(default=None, ge=1, le=MAX_LEVELS)
    """Number of coarser levels; None: until the coarsest has at most 512 voxels along each axis."""
    labels: bool = False
    """Take the most frequent voxel, whatever type and metadata say."""
    missing_chunks: Literal["fill", "refuse"] | None = None
    """What to do about chunks that level 0 lacks; None: they are filled."""
    cluster: ClusterField = None
    """None: local workers, or this process for a few blocks."""
    workers: int | None = Field(default=None, ge=1, le=4096)
    tls: str | None = None
    """Folder of `ca.pem`, `cert.pem` and `key.pem`, for a `tls://` address."""
    resume: bool = False
    check: bool = False
    """Read all files of the levels, and make those again that have changed."""
    overwrite: bool = False

    @field_validator("target", "tls", mode="before")
    @classmethod
    def _path_as_text(cls, value: Any) -> Any:
        return fspath(value) if isinstance(value, PathLike) else value

    @field_validator("levels", mode="before")
    @classmethod
    def _auto_as_none(cls, value: Any) -> Any:
        return None if value == "auto" else value
