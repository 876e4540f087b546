"""Options of a prediction and of a verification, and run files of a training, validated; unknown keys are refused."""

from volseg.config.cluster import BatchConfig, Cluster, read_cluster
from volseg.config.convert import ConvertConfig, ConvertOptions
from volseg.config.predict import PredictConfig, PredictOptions
from volseg.config.prices import Prices, read_prices
from volseg.config.pyramid import PyramidConfig, PyramidOptions
from volseg.config.toml import as_toml, override, read_toml, validate
from volseg.config.train import OutputConfig, TrainConfig
from volseg.config.verify import VerifyConfig, VerifyOptions

__all__ = [
    "BatchConfig",
    "Cluster",
    "ConvertConfig",
    "ConvertOptions",
    "OutputConfig",
    "PredictConfig",
    "PredictOptions",
    "Prices",
    "PyramidConfig",
    "PyramidOptions",
    "TrainConfig",
    "VerifyConfig",
    "VerifyOptions",
    "as_toml",
    "override",
    "read_cluster",
    "read_prices",
    "read_toml",
    "validate",
]
