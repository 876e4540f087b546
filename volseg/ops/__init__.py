"""Pure array functions: numpy in, numpy out."""

from volseg.ops.boundaries import boundaries
from volseg.ops.ensemble import RunningMean
from volseg.ops.normalize import (
    Grey,
    Normalization,
    Statistics,
    moments,
    normalize,
    section_moments,
    to_probability,
    to_uint8,
)
from volseg.ops.pad import read_reflected, reflect_gather
from volseg.ops.weight_map import weight_map

__all__ = [
    "RunningMean",
    "Grey",
    "Normalization",
    "Statistics",
    "boundaries",
    "read_reflected",
    "moments",
    "normalize",
    "section_moments",
    "to_probability",
    "to_uint8",
    "reflect_gather",
    "weight_map",
]
