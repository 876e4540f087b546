"""A mask of a volume: where a run has something to compute, asked block by block and read slab by slab."""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import Box, LevelScale, boxes_along
from volseg.errors import ConfigError, GridError, SourceError
from volseg.storage.fingerprint import source_identity
from volseg.storage.run_record import MaskEntry
from volseg.storage.zarr_volume import LABELS, open_volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volseg.blocks import BlockGrid
    from volseg.storage.zarr_volume import Volume

OUTSIDE = "outside the mask"
"""Why a block was skipped: its write box holds no voxel of the mask."""

_TYPES = ("int8", *LABELS, "float32")
_HELD = 1 << 26


class BlockMask:
    """Which blocks of a run a mask touches: those whose write box holds a voxel where it is not zero.

    Blocks are asked for in ascending order, or any other, which costs more reading. What is held is one slab: for
    a few rows of blocks along z, whether each of their blocks is touched. A slab is read in windows of the mask.

        mask   . . # # . .          write boxes   |     |  #  |  #  |     |
               . . . # . .                        |     |     |  #  |     |
    """

    def __init__(self, volume: Volume, grid: BlockGrid, held: int = _HELD) -> None:
        """Compare the shapes; nothing is read.

        Args:
            volume: the mask.
            grid: the run's blocks.
            held: bytes of the mask that are read at once; more where one block's are more.

        Raises:
            GridError: the mask is no level of the run's volume.
        """
        try:
            coarser = LevelScale.between(grid.shape, volume.shape)
        except GridError as error:
            raise GridError(
                f"mask {volume.location} does not fit the source: {error}; give a mask of the same volume at the same "
                "resolution or a coarser one, such as an array of its pyramid"
            ) from None
        self.volume = volume
        self._grid = grid
        self._spans = tuple(
            [coarser.span(axis, box.start[axis], box.stop[axis]) for box in boxes_along(grid, axis)]
            for axis in range(3)
        )
        self._rows, *self._window = self._pieces(held)
        self._slab = -1
        self._touched: NDArray[np.bool_] = np.zeros((0, 0), bool)

    def _pieces(self, held: int) -> tuple[int, int, int]:
        """Blocks along each axis that are read at once: as deep as the mask's chunks, then as wide as may be."""
        deepest, *sides = (max(high - low for low, high in spans) for spans in self._spans)
        block = deepest * prod(sides) * np.dtype(self.volume.dtype).itemsize
        nz, ny, nx = self._grid.counts
        most = min(held // block, held // (ny * nx), nz)
        rows = max(1, min(self.volume.chunk[0] // deepest, most))
        across = max(1, min(held // (rows * block), nx))
        return rows, max(1, min(held // (rows * block * across), ny)), across

    def __contains__(self, number: int) -> bool:
        """Whether a block has something to compute.

        Raises:
            SourceError: the mask cannot be read.
        """
        row, place = divmod(number, prod(self._grid.counts[1:]))
        slab, inside = divmod(row, self._rows)
        if slab != self._slab:
            self._touched, self._slab = self._read(slab), slab
        return bool(self._touched[inside, place])

    @cached_property
    def count(self) -> int:
        """Blocks that have something to compute; the first time, the whole mask is read."""
        slabs = -(-self._grid.counts[0] // self._rows)
        return sum(int(self._read(slab).sum()) for slab in range(slabs))

    @cached_property
    def entry(self) -> MaskEntry:
        """What a run's record keeps of it."""
        return MaskEntry(
            location=self.volume.location,
            shape=self.volume.shape,
            identity=source_identity(self.volume),
            blocks=self.count,
        )

    def _read(self, slab: int) -> NDArray[np.bool_]:
        """Whether each block of a slab is touched, (rows along z, blocks of a row)."""
        _, ny, nx = self._grid.counts
        zs = self._spans[0][slab * self._rows : (slab + 1) * self._rows]
        touched = np.zeros((len(zs), ny, nx), bool)
        down, across = self._window
        for y in range(0, ny, down):
            for x in range(0, nx, across):
                spans = (zs, self._spans[1][y : y + down], self._spans[2][x : x + across])
                touched[:, y : y + down, x : x + across] = self._window_touched(spans)
        return touched.reshape(len(zs), ny * nx)

    def _window_touched(self, spans: Sequence[Sequence[tuple[int, int]]]) -> NDArray[np.bool_]:
        z, y, x = (axis[0][0] for axis in spans)
        zz, yy, xx = (axis[-1][1] for axis in spans)
        return any_within(self.volume.read(Box((z, y, x), (zz, yy, xx))) != 0, spans, (z, y, x))


def any_within(
    values: NDArray[np.bool_], spans: Sequence[Sequence[tuple[int, int]]], origin: Sequence[int]
) -> NDArray[np.bool_]:
    """Whether anything is true within each box of a grid; neighbouring boxes may share voxels.

    Args:
        values: any number of axes.
        spans: for each axis, where each box begins and ends along it.
        origin: where `values` begins.

    >>> any_within(np.bool_([0, 0, 1, 0, 0]), [[(4, 6), (6, 7), (6, 9)]], [4]).tolist()
    [False, True, True]
    """
    for axis, boxes in enumerate(spans):
        along = np.moveaxis(values, axis, 0)
        found = [along[low - origin[axis] : high - origin[axis]].any(axis=0) for low, high in boxes]
        values = np.moveaxis(np.stack(found), 0, axis)
    return values


def open_mask(location: str, grid: BlockGrid) -> BlockMask:
    """Open the mask of a run.

    Args:
        location: a path or a URL of a Zarr 2 or 3 array, or of an OME-Zarr group, whose finest level is taken.
        grid: the run's blocks.

    Raises:
        SourceError: it cannot be read.
        GridError: it is no level of the run's volume.
        ConfigError: it leaves nothing to compute.
    """
    try:
        volume = open_volume(location, _TYPES)
    except SourceError as error:
        raise SourceError(f"the mask cannot be opened: {error}") from error
    mask = BlockMask(volume, grid)
    if not mask.count:
        raise ConfigError(
            f"mask {mask.volume.location} is zero all over {grid.region}, so there is nothing to compute; blocks are "
            "computed where it is not zero: check that it is this volume's, and not inverted"
        )
    return mask
