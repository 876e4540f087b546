"""What users write: options of a prediction and the TOML of a training. Unknown keys are refused."""

from volseg.runfiles.configs import OutputConfig, PredictConfig, PredictOptions, TrainConfig
from volseg.runfiles.reading import assigned, checked, read_toml
from volseg.runfiles.writing import as_toml

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
