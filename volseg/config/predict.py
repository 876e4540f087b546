"""What users write: options of a prediction and the TOML of a training. Unknown keys are refused."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any, Literal, TypedDict

from pydantic import Field, field_validator

from volseg.blocks import Zyx
from volseg.config.base import FrozenModel
from volseg.config.tolerance import Tolerance


class PredictOptions(TypedDict, total=False):
    """Options of `volseg.predict`, as on the command line."""

    block: Zyx | None
    halo: Literal["auto", "exact"] | Zyx
    halo_tolerance: Tolerance | tuple[float, float]
    orientations: Literal["one", "flips", "all"]
    classes: str
    uncertainty: bool
    tile: Zyx | None
    scale_level: int | None
    shard: Zyx | None
    chunk: Zyx | None
    roi: str | None
    mask: str | None
    ignore_voxel_size: bool
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    cluster: str
    workers: int | None
    resume: bool
    overwrite: bool


class PredictConfig(FrozenModel):
    """One prediction run."""

    source: str
    target: str
    model: tuple[str, ...] = Field(min_length=1)
    """One model, or several whose estimates are averaged."""
    block: Zyx | None = None
    halo: Literal["auto", "exact"] | Zyx = "auto"
    halo_tolerance: Tolerance | None = None
    orientations: Literal["one", "flips", "all"] = "one"
    classes: str = Field(default="auto", min_length=1)
    """`auto`, `all`, or names with commas between them."""
    uncertainty: bool = False
    tile: Zyx | None = None
    """The core of what one forward pass sees; None: the fastest that fits the memory."""
    scale_level: int | None = Field(default=None, ge=0)
    shard: Zyx | None = None
    chunk: Zyx | None = None
    roi: str | None = None
    mask: str | None = None
    """Blocks in which this volume is zero are not computed."""
    ignore_voxel_size: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    cluster: str = "local"
    workers: int | None = Field(default=None, ge=1, le=4096)
    resume: bool = False
    overwrite: bool = False

    @field_validator("source", "target", "mask", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return fspath(value) if isinstance(value, PathLike) else value

    @field_validator("model", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        listed = [value] if isinstance(value, str | PathLike) else value
        return [fspath(each) if isinstance(each, PathLike) else each for each in listed]

    @field_validator("classes", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return ",".join(value) if isinstance(value, tuple | list) else value

    @field_validator("halo_tolerance", mode="before")
    @classmethod
    def _percent_and_levels(cls, value: Any) -> Any:
        """A pair is what people write on the command line: percent, grey levels."""
        if isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(v, int | float) for v in value):
            return Tolerance(value[0] / 100, value[1])
        return value
