"""Options of a verification."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any, TypedDict

from pydantic import Field, field_validator

from volseg.blocks import Zyx
from volseg.config.base import FrozenModel
from volseg.config.cluster import Cluster, ClusterField


class VerifyOptions(TypedDict, total=False):
    """Options of `volseg.verify`, named as on the command line."""

    deep: bool
    repair: bool
    source: str | None
    model: tuple[str, ...]
    mask: str | None
    cluster: Cluster
    workers: int | None
    tls: str | None
    resume: bool
    seams: bool | None
    block: Zyx | None


class VerifyConfig(FrozenModel):
    """One verification."""

    target: str
    deep: bool = False
    """Decode the voxels too."""
    repair: bool = False
    source: str | None = None
    """For a repair: where the run's source lies; None: as recorded."""
    model: tuple[str, ...] = ()
    """For a repair: where the run's models lie, in their order; empty: as recorded."""
    mask: str | None = None
    """For a repair: where the run's mask lies; None: as recorded."""
    cluster: ClusterField = "local"
    workers: int | None = Field(default=None, ge=1, le=4096)
    tls: str | None = None
    """Folder of `ca.pem`, `cert.pem` and `key.pem`, for a `tls://` address."""
    resume: bool = False
    """Go on after a verification that was stopped."""
    seams: bool | None = None
    """True: also compute places across block faces in one piece; None: look at the map alone; False: do not look."""
    block: Zyx | None = None
    """Shape of the blocks of another tool's map; None to search it."""

    @field_validator("target", "source", "mask", "tls", mode="before")
    @classmethod
    def _path_as_text(cls, value: Any) -> Any:
        return fspath(value) if isinstance(value, PathLike) else value

    @field_validator("model", mode="before")
    @classmethod
    def _one_as_tuple(cls, value: Any) -> Any:
        models = [value] if isinstance(value, str | PathLike) else value
        return [fspath(model) if isinstance(model, PathLike) else model for model in models]
