"""The mask of a run: which blocks to compute. It is read slab by slab."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import BlockSet, Box, LevelScale, boxes_along, to_zyx
from volseg.errors import ConfigError, GridError, SourceError
from volseg.storage.fingerprint import volume_fingerprint
from volseg.storage.readers import open_readable
from volseg.storage.record_entries import MaskEntry
from volseg.storage.zarr_volume import LABELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volseg.blocks import BlockGrid
    from volseg.ops import OutputResampling
    from volseg.storage.readers import Readable

OUTSIDE = "outside the mask"
"""Reason to skip a block: its write box contains no voxel of the mask."""

_TYPES = ("int8", *LABELS, "float32")
_MAX_BYTES = 1 << 26


@dataclass(frozen=True)
class VoxelMask:
    """The voxels of the run's volume that a mask keeps; workers open it again.

    Attributes:
        volume: the mask.
        scale: of its level.
        output: from the run's voxels to those of its map; None if they are the same.
    """

    volume: Readable
    scale: LevelScale
    output: OutputResampling | None = None

    def read(self, box: Box) -> NDArray[np.bool_]:
        """Whether the mask keeps each voxel of a box of the run's volume (z, y, x); as the coarser voxel over it says.

        Raises:
            SourceError: the mask cannot be read.
        """
        axes = [map_places(self.output, axis, box.start[axis], box.stop[axis]) for axis in range(3)]
        start, stop = (to_zyx(int(places[at]) for places in axes) for at in (0, -1))
        coarse = self.scale.box(Box(start, to_zyx(n + 1 for n in stop)))
        kept: NDArray[np.bool_] = self.volume.read(coarse) != 0
        for axis, places in enumerate(axes):
            last = self.scale.shape[axis] - 1
            low = np.minimum(places // self.scale.max_factor[axis], last) - coarse.start[axis]
            high = np.minimum(places // self.scale.min_factor[axis], last) - coarse.start[axis]
            # With few voxels several factors are possible: a voxel that any of them keeps is kept.
            steps = int((high - low).max()) + 1
            kept = np.any([kept.take(np.minimum(low + k, high), axis) for k in range(steps)], axis=0)
        return kept


@dataclass(frozen=True)
class KeptBlocks:
    """The blocks of a run in some sections that a mask contains, to send to a worker.

    Attributes:
        grid: the run's blocks, in voxels of the map.
        first_row: row of blocks along z at which `kept` begins.
        kept: whether the mask contains each block, (rows along z, y, x).
        voxels: the mask by voxels.
    """

    grid: BlockGrid
    first_row: int
    kept: NDArray[np.bool_]
    voxels: VoxelMask

    def contain(self, box: Box) -> NDArray[np.bool_]:
        """Whether each voxel of a box (z, y, x) is written by such a block; sections beyond are as the nearest."""
        result = self.kept
        for axis in range(3):
            places = map_places(self.voxels.output, axis, box.start[axis], box.stop[axis])
            blocks = places // self.grid.block[axis] - self.grid.offset[axis]
            blocks -= self.first_row if axis == 0 else 0
            result = result.take(np.clip(blocks, 0, self.kept.shape[axis] - 1), axis)
        return result


class BlockMask:
    """The blocks of a run that a mask contains: those whose write box contains a voxel that is not zero.

    Query blocks in ascending order; other orders read more. Only one slab is in memory: for a few rows of blocks along
    z, whether the mask contains each block. A slab is read in windows of the mask.

        mask   . . # # . .          write boxes   |     |  #  |  #  |     |
               . . . # . .                        |     |     |  #  |     |
    """

    def __init__(
        self,
        volume: Readable,
        grid: BlockGrid,
        output: OutputResampling | None = None,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        """Compare the shapes; no voxel is read.

        Args:
            volume: the mask.
            grid: the run's blocks, in voxels of the map.
            output: from the run's voxels to those of its map; None if they are the same.
            max_bytes: maximum size of one read of the mask, unless a single block needs more.

        Raises:
            GridError: the mask's shape is not a level of the run's volume.
        """
        try:
            scale = LevelScale.between(grid.shape, volume.shape)
        except GridError as error:
            raise GridError(
                f"mask {volume.location} does not fit the source: {error}; give a mask of the same volume at the same "
                "resolution or a coarser one, such as an array of its pyramid"
            ) from None
        self.volume = volume
        self._scale = scale
        self._grid, self._output = grid, output
        self._spans = tuple(
            [scale.span(axis, box.start[axis], box.stop[axis]) for box in boxes_along(grid, axis)] for axis in range(3)
        )
        self._rows, *self._window = self._window_counts(max_bytes)
        self._slab = -1
        self._contained: NDArray[np.bool_] = np.zeros((0, 0), bool)

    def _window_counts(self, max_bytes: int) -> tuple[int, int, int]:
        """Choose blocks per read along each axis: as deep as the mask's chunks, then as wide as possible."""
        block_z, *block_yx = (max(high - low for low, high in spans) for spans in self._spans)
        block_bytes = block_z * prod(block_yx) * np.dtype(self.volume.dtype).itemsize
        nz, ny, nx = self._grid.counts
        max_rows = min(max_bytes // block_bytes, max_bytes // (ny * nx), nz)
        z = max(1, min(self.volume.chunk[0] // block_z, max_rows))
        x = max(1, min(max_bytes // (z * block_bytes), nx))
        return z, max(1, min(max_bytes // (z * block_bytes * x), ny)), x

    def __contains__(self, number: int) -> bool:
        """Whether the mask contains a block.

        Raises:
            SourceError: the mask cannot be read.
        """
        row, column = divmod(number, prod(self._grid.counts[1:]))
        slab, row_in_slab = divmod(row, self._rows)
        if slab != self._slab:
            self._contained, self._slab = self._read(slab), slab
        return bool(self._contained[row_in_slab, column])

    def kept_blocks(self, first: int, stop: int) -> KeptBlocks:
        """The blocks that it contains in sections [first, stop) of the run's volume, or in the nearest ones.

        Raises:
            SourceError: the mask cannot be read.
        """
        nz, ny, nx = self._grid.counts
        places = map_places(self._output, 0, first, stop)
        row, last = (
            min(max(int(z) // self._grid.block[0] - self._grid.offset[0], 0), nz - 1) for z in (places[0], places[-1])
        )
        numbers = range(row * ny * nx, (last + 1) * ny * nx)
        kept = np.fromiter((number in self for number in numbers), bool, len(numbers)).reshape(-1, ny, nx)
        return KeptBlocks(self._grid, row, kept, VoxelMask(self.volume, self._scale, self._output))

    @cached_property
    def count(self) -> int:
        """Number of blocks in the mask; the first call reads the whole mask."""
        slabs = -(-self._grid.counts[0] // self._rows)
        return sum(int(self._read(slab).sum()) for slab in range(slabs))

    def blocks(self) -> BlockSet:
        """The blocks in the mask; each call reads the whole mask.

        Raises:
            SourceError: the mask cannot be read.
        """
        slabs = -(-self._grid.counts[0] // self._rows)
        return BlockSet.from_flags(np.concatenate([self._read(slab).ravel() for slab in range(slabs)]))

    @cached_property
    def entry(self) -> MaskEntry:
        """The mask's entry in the run record."""
        return MaskEntry(
            location=self.volume.location,
            shape=self.volume.shape,
            identity=volume_fingerprint(self.volume),
            blocks=self.count,
        )

    def _read(self, slab: int) -> NDArray[np.bool_]:
        """Whether the mask contains each block of a slab, (rows along z, blocks of a row)."""
        _, ny, nx = self._grid.counts
        zs = self._spans[0][slab * self._rows : (slab + 1) * self._rows]
        contained = np.zeros((len(zs), ny, nx), bool)
        height, width = self._window
        for y in range(0, ny, height):
            for x in range(0, nx, width):
                spans = (zs, self._spans[1][y : y + height], self._spans[2][x : x + width])
                contained[:, y : y + height, x : x + width] = self._read_window(spans)
        return contained.reshape(len(zs), ny * nx)

    def _read_window(self, spans: Sequence[Sequence[tuple[int, int]]]) -> NDArray[np.bool_]:
        z, y, x = (axis[0][0] for axis in spans)
        zz, yy, xx = (axis[-1][1] for axis in spans)
        return any_in_boxes(self.volume.read(Box((z, y, x), (zz, yy, xx))) != 0, spans, (z, y, x))


def any_in_boxes(
    values: NDArray[np.bool_], spans: Sequence[Sequence[tuple[int, int]]], origin: Sequence[int]
) -> NDArray[np.bool_]:
    """Whether any value is true in each box of a grid of boxes, which may overlap.

    Args:
        values: any number of axes.
        spans: for each axis, start and stop of each box.
        origin: position of the first value along each axis.

    >>> any_in_boxes(np.bool_([0, 0, 1, 0, 0]), [[(4, 6), (6, 7), (6, 9)]], [4]).tolist()
    [False, True, True]
    """
    for axis, boxes in enumerate(spans):
        first = np.moveaxis(values, axis, 0)
        boxes_any = [first[low - origin[axis] : high - origin[axis]].any(axis=0) for low, high in boxes]
        values = np.moveaxis(np.stack(boxes_any), 0, axis)
    return values


def map_places(output: OutputResampling | None, axis: int, start: int, stop: int) -> NDArray[np.int64]:
    """Voxels of the map at the run's voxels [start, stop) along an axis."""
    return np.arange(start, stop) if output is None else output.positions(axis, start, stop)


def open_mask(location: str, grid: BlockGrid, output: OutputResampling | None = None) -> BlockMask:
    """Open the mask of a run.

    Args:
        location: of a volume of any format; the finest level of an OME-Zarr group is used.
        grid: the run's blocks, in voxels of the map.
        output: from the run's voxels to those of its map; None if they are the same.

    Raises:
        SourceError: the mask cannot be read.
        GridError: its shape is not a level of the run's volume.
        ConfigError: it contains no block.
    """
    try:
        volume = open_readable(location, _TYPES)
    except SourceError as error:
        raise SourceError(f"the mask cannot be opened: {error}") from error
    mask = BlockMask(volume, grid, output)
    if not mask.count:
        raise ConfigError(
            f"mask {mask.volume.location} is zero everywhere in {grid.region}, so there is nothing to compute; check "
            "that it belongs to this volume and is not inverted (blocks are computed where it is not zero)"
        )
    return mask
