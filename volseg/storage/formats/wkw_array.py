"""WKW arrays, by the wkw package."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.errors import SourceError
from volseg.storage.extras import require

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_MAX_SIDE = 1 << 32


class WkwArray:
    """A WKW dataset, axes channel, x, y, z; what no file holds is zero.

    Args:
        path: of its folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        header = self._dataset.header
        self.dtype = np.dtype(header.voxel_type).name
        self.channels = int(header.num_channels)
        self.block, self.cube = int(header.block_len), int(header.block_len * header.file_len)

    def __call__(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        """Read an index of integers and slices."""
        channel, *rest = index
        spans = [(one, one + 1) if isinstance(one, int) else (one.start, one.stop) for one in rest]
        if any(stop > _MAX_SIDE for _, stop in spans):
            raise SourceError(f"{self._path} has no voxels so far out: {spans}")
        voxels = np.asarray(self._dataset.read([a for a, _ in spans], [b - a for a, b in spans]))
        return voxels[(channel, *(0 if isinstance(one, int) else slice(None) for one in rest))]

    @cached_property
    def _dataset(self) -> Any:
        wkw = require("wkw", "wkw", str(self._path))
        try:
            return wkw.Dataset.open(str(self._path))
        except Exception as error:  # of the library, or an assertion
            raise SourceError(f"{self._path} cannot be read as WKW: {error}; copy it again") from error

    def key(self, number: tuple[int, ...]) -> str:
        """File of a cube, from its number along channel, x, y, z."""
        _, x, y, z = number
        return f"z{z}/y{y}/x{x}.wkw"
