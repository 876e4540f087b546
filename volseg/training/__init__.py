"""Training: patches, enrichment, losses, and a loop that reads top to bottom.

What is exported here needs no torch.
"""

from volseg.training.settings import (
    DataSettings,
    EnrichmentSettings,
    FitSettings,
    LossSettings,
    NetworkSettings,
    OptimizerSettings,
    PatchSettings,
    ScheduleSettings,
    TargetSettings,
    TrainingSettings,
    ValidationSettings,
)
from volseg.training.volumes import LabelledVolume, open_labelled, open_volumes

__all__ = [
    "DataSettings",
    "EnrichmentSettings",
    "FitSettings",
    "LabelledVolume",
    "LossSettings",
    "NetworkSettings",
    "OptimizerSettings",
    "PatchSettings",
    "ScheduleSettings",
    "TargetSettings",
    "TrainingSettings",
    "ValidationSettings",
    "open_labelled",
    "open_volumes",
]
