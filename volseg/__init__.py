"""volseg: membrane probability maps of electron-microscopy volumes of any size.

The three calls that most notebooks need::

    volseg.predict("raw.zarr", "membrane.zarr", model="fusionnet.safetensors")
    lazy = volseg.membrane_probability(dask_array, "fusionnet.safetensors")
    model = volseg.load_model("fusionnet.safetensors")

Importing volseg loads neither torch nor dask: each call imports what it needs, and result types are imported when they
are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from volseg.api import (
    convert,
    evaluate,
    list_models,
    load_model,
    membrane_probability,
    open_viewer,
    predict,
    pyramid,
    train,
    verify,
)
from volseg.errors import (
    BlockError,
    ClusterError,
    ConfigError,
    GridError,
    MemoryPlanError,
    ModelError,
    NotFiniteError,
    ResumeError,
    RunAbortedError,
    SourceError,
    SourceLostError,
    TargetError,
    TargetLostError,
    TrainingError,
    VolsegError,
    WorkerError,
)
from volseg.version import __version__

if TYPE_CHECKING:
    from volseg.conversion.pyramid import PyramidSummary as PyramidSummary
    from volseg.conversion.run import Conversion as Conversion
    from volseg.evaluation.evaluate import MapScores as MapScores
    from volseg.evaluation.metrics import InstanceScores as InstanceScores
    from volseg.models.model import Model as Model
    from volseg.prediction.summary import Summary as Summary
    from volseg.prediction.verification.report import VerifyReport as VerifyReport
    from volseg.training.trainer import TrainingResult as TrainingResult
    from volseg.view import Session as Session

_RESULTS = {
    "Conversion": "volseg.conversion.run",
    "InstanceScores": "volseg.evaluation.metrics",
    "MapScores": "volseg.evaluation.evaluate",
    "Model": "volseg.models.model",
    "PyramidSummary": "volseg.conversion.pyramid",
    "Session": "volseg.view",
    "Summary": "volseg.prediction.summary",
    "TrainingResult": "volseg.training.trainer",
    "VerifyReport": "volseg.prediction.verification.report",
}

__all__ = [
    "BlockError",
    "ClusterError",
    "ConfigError",
    "Conversion",
    "GridError",
    "InstanceScores",
    "MapScores",
    "MemoryPlanError",
    "Model",
    "ModelError",
    "NotFiniteError",
    "PyramidSummary",
    "ResumeError",
    "RunAbortedError",
    "Session",
    "SourceError",
    "SourceLostError",
    "Summary",
    "TargetError",
    "TargetLostError",
    "TrainingError",
    "TrainingResult",
    "VerifyReport",
    "VolsegError",
    "WorkerError",
    "__version__",
    "convert",
    "evaluate",
    "list_models",
    "load_model",
    "membrane_probability",
    "open_viewer",
    "predict",
    "pyramid",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _RESULTS:
        return getattr(import_module(_RESULTS[name]), name)
    raise AttributeError(f"module 'volseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
