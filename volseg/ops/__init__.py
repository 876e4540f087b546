"""Pure array functions: numpy in, numpy out."""

from volseg.ops.boundaries import boundaries
from volseg.ops.consensus import Consensus
from volseg.ops.normalize import Grey, Normalization, Statistics, moments, normalize, section_moments
from volseg.ops.pad import mirrored, unfolded
from volseg.ops.quantize import to_probability, to_uint8
from volseg.ops.weight_map import weight_map

__all__ = [
    "Consensus",
    "Grey",
    "Normalization",
    "Statistics",
    "boundaries",
    "mirrored",
    "moments",
    "normalize",
    "section_moments",
    "to_probability",
    "to_uint8",
    "unfolded",
    "weight_map",
]
