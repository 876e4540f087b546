"""What users write: options of a prediction and the TOML of a training. Unknown keys are refused."""

from __future__ import annotations

import tomllib
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from volseg.blocks import Zyx
from volseg.errors import ConfigError
from volseg.pipeline.halo import Tolerance
from volseg.training import DataSettings, FitSettings, NetworkSettings

ModelT = TypeVar("ModelT", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PredictOptions(TypedDict, total=False):
    """Options of `volseg.predict`, as on the command line."""

    block: Zyx | None
    halo: Literal["auto", "exact"] | Zyx
    halo_tolerance: Tolerance | tuple[float, float]
    orientations: Literal["one", "flips", "all"]
    classes: str
    uncertainty: bool
    scale_level: int | None
    shard: Zyx | None
    chunk: Zyx | None
    roi: str | None
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
    scale_level: int | None = Field(default=None, ge=0)
    shard: Zyx | None = None
    chunk: Zyx | None = None
    roi: str | None = None
    ignore_voxel_size: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    cluster: str = "local"
    workers: int | None = Field(default=None, ge=1, le=4096)
    resume: bool = False
    overwrite: bool = False

    @field_validator("source", "target", mode="before")
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
    name: str = "model"
    """The model file is FOLDER/NAME.safetensors."""


class TrainConfig(_Frozen):
    """One training, as written in its TOML file."""

    data: DataSettings
    network: NetworkSettings = NetworkSettings()
    fit: FitSettings = FitSettings()
    output: OutputConfig


def checked(kind: type[ModelT], values: dict[str, Any], where: str) -> ModelT:
    """Make a config of plain values.

    Raises:
        ConfigError: names the first key that does not fit, its value and what would fit.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{where} does not know {key!r}; {_known(kind, first['loc'])}") from None
        given = "" if first["type"] == "missing" else f" (given: {first['input']!r})"
        raise ConfigError(f"{where}: {key}: {first['msg']}{given}") from None


def _known(kind: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """The keys that would do where an unknown one stands."""
    for part in place[:-1]:
        inner = kind.model_fields[str(part)].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        kind = inner
    return f"it knows {', '.join(kind.model_fields)}"


def read_toml(path: str | Path, kind: type[ModelT]) -> ModelT:
    """Read a run file; relative paths in it count from where the command runs.

    Raises:
        ConfigError: not there, not TOML, or with keys that do not fit.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read run file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"run file {path} is not TOML: {error}") from error
    return checked(kind, values, f"run file {path}")
