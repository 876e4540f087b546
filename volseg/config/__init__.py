"""Run files and options: what users write, checked. Unknown keys are refused."""

from volseg.config.predict import PredictConfig, PredictOptions
from volseg.config.toml import as_toml, assigned, checked, read_toml
from volseg.config.train import OutputConfig, TrainConfig

__all__ = [
    "OutputConfig",
    "PredictConfig",
    "PredictOptions",
    "TrainConfig",
    "as_toml",
    "assigned",
    "checked",
    "read_toml",
]
