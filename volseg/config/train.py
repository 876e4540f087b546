"""The run file of a training."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from volseg.config.predict import _Frozen
from volseg.config.train_tables import TrainingSettings


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
