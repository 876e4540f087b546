"""What users write: options of a prediction and the TOML of a training. Unknown keys are refused."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, field_validator

from volseg.blocks import Zyx
from volseg.pipeline.halo import Tolerance
from volseg.training import TrainingSettings


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


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


class PredictConfig(_Frozen):
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


class OutputConfig(_Frozen):
    """Where results go."""

    folder: str
    name: str = Field(default="model", pattern=r"^[^/\\]+$")
    """The best model is FOLDER/NAME.safetensors, the last one FOLDER/NAME-last.safetensors."""
    float16: bool = False
    """Round the saved weights to float16: files of half the size. The checkpoint stays as it is."""
    tensorboard: bool = False
    """Write figures and pictures for TensorBoard into FOLDER/tensorboard too."""

    @property
    def model(self) -> Path:
        """The best model so far."""
        return Path(self.folder) / f"{self.name}.safetensors"

    @property
    def last_model(self) -> Path:
        """The model of the last validation or step."""
        return Path(self.folder) / f"{self.name}-last.safetensors"

    @property
    def checkpoint(self) -> Path:
        """All that it takes to go on."""
        return Path(self.folder) / "checkpoint.safetensors"

    @property
    def log(self) -> Path:
        """A line of JSON for each step and validation."""
        return Path(self.folder) / "log.jsonl"

    @property
    def pictures(self) -> tuple[Path, Path, Path]:
        """Curves, the last validation, the best validation."""
        curves, last, best = (Path(self.folder) / f"{name}.png" for name in ("curves", "validation", "validation-best"))
        return curves, last, best


class TrainConfig(TrainingSettings):
    """One training, as written in its TOML file."""

    output: OutputConfig

    @property
    def settings(self) -> TrainingSettings:
        """All but where results go."""
        return TrainingSettings(**{name: getattr(self, name) for name in TrainingSettings.model_fields})
