"""Volumes in .npy files."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.blocks import Box, Zyx
from volseg.errors import SourceError
from volseg.ops import read_reflected


@dataclass(frozen=True)
class NpyVolume:
    """A volume (z, y, x) in a .npy file."""

    location: str
    shape: Zyx
    dtype: str
    voxel_nm: None = None  # not stated in the file
    translation_nm: None = None  # of the first voxel; readers may leave it out

    @property
    def chunk(self) -> Zyx:
        """One section."""
        return (1, *self.shape[1:])

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box, mirrored outside the volume."""
        return read_reflected(np.load(self.location, mmap_mode="r"), box.start, box.stop)


def accepts(location: str) -> bool:
    """Whether a location names a .npy file."""
    return location.endswith(".npy")


def open(location: str, dtypes: tuple[str, ...]) -> NpyVolume:
    """Open a volume; volseg refuses a type that is not in `dtypes`."""
    try:
        array = np.load(location, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read {location}: {error}; check the path") from error
    if array.ndim != 3:
        raise SourceError(f"{location} has {array.ndim} axes; save an array with axes (z, y, x)")
    return NpyVolume(location, array.shape, array.dtype.name)
