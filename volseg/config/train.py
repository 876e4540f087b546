"""The run file of a training."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from volseg.config.base import FrozenModel
from volseg.config.train_tables import TrainingSettings


class OutputConfig(FrozenModel):
    """Output files."""

    folder: str
    name: str = Field(default="model", pattern=r"^[^/\\]+$")
    """The best model is FOLDER/NAME.safetensors, the last one FOLDER/NAME-last.safetensors."""
    float16: bool = False
    """Round the saved weights to float16, which halves the model files. The checkpoint keeps float32."""
    tensorboard: bool = False
    """Also write scalars and images for TensorBoard into FOLDER/tensorboard."""

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
        """Everything needed to resume."""
        return Path(self.folder) / "checkpoint.safetensors"

    @property
    def log(self) -> Path:
        """A line of JSON for each step and validation."""
        return Path(self.folder) / "log.jsonl"

    @property
    def curves(self) -> Path:
        """Loss, learning rate and scores over the steps."""
        return Path(self.folder) / "curves.png"

    @property
    def last_image(self) -> Path:
        """Sections of the last validation."""
        return Path(self.folder) / "validation.png"

    @property
    def best_image(self) -> Path:
        """Sections of the best validation."""
        return Path(self.folder) / "validation-best.png"


class TrainConfig(TrainingSettings):
    """A training run file."""

    output: OutputConfig

    @property
    def settings(self) -> TrainingSettings:
        """All tables but `output`."""
        return TrainingSettings(**{name: getattr(self, name) for name in TrainingSettings.model_fields})
