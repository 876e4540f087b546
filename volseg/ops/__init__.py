"""Pure functions of numpy arrays."""

from volseg.ops.boundaries import boundaries
from volseg.ops.downsample import downsample_mean, downsample_mode
from volseg.ops.ensemble import RunningMean
from volseg.ops.normalize import (
    Grey,
    Normalization,
    Statistics,
    moments,
    normalize,
    to_probability,
    to_uint8,
)
from volseg.ops.output_resampling import OutputResampling
from volseg.ops.pad import read_reflected, reflect_gather
from volseg.ops.resampling import Resampling
from volseg.ops.rescale import Rescale
from volseg.ops.uniform import is_constant
from volseg.ops.weight_map import weight_map

__all__ = [
    "Grey",
    "Normalization",
    "OutputResampling",
    "Resampling",
    "Rescale",
    "RunningMean",
    "Statistics",
    "boundaries",
    "downsample_mean",
    "downsample_mode",
    "is_constant",
    "moments",
    "normalize",
    "read_reflected",
    "reflect_gather",
    "to_probability",
    "to_uint8",
    "weight_map",
]
