"""Options of a prediction and run files of a training, validated; unknown keys are refused."""

from volseg.config.predict import PredictConfig, PredictOptions
from volseg.config.toml import as_toml, override, read_toml, validate
from volseg.config.train import OutputConfig, TrainConfig

__all__ = [
    "OutputConfig",
    "PredictConfig",
    "PredictOptions",
    "TrainConfig",
    "as_toml",
    "override",
    "read_toml",
    "validate",
]
