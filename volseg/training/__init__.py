"""Training: patches, orientations and a loop that reads top to bottom.

What is exported here needs torch only when it is called.
"""

from volseg.training.data import LabelledVolume, load_labelled
from volseg.training.settings import DataSettings, FitSettings, NetworkSettings

__all__ = ["DataSettings", "FitSettings", "LabelledVolume", "NetworkSettings", "load_labelled"]
