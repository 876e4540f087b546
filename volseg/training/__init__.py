"""Training of networks on labelled volumes.

The names exported here need no torch.
"""

from volseg.training.data.volumes import LabelledVolume, open_labelled, open_volumes

__all__ = ["LabelledVolume", "open_labelled", "open_volumes"]
