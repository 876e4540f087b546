"""Training: patches, augmentation, losses, and a loop that reads top to bottom.

What is exported here needs no torch.
"""

from volseg.training.data.volumes import LabelledVolume, open_labelled, open_volumes

__all__ = ["LabelledVolume", "open_labelled", "open_volumes"]
