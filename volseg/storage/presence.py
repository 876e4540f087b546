"""Whether the shards of marked blocks are there, with the size that was marked: by listing folders, beside a run."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from volseg.errors import TargetError
from volseg.storage.object_path import ObjectPath
from volseg.storage.size_table import UNKNOWN_SIZE, release_pages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from volseg.blocks import BlockGrid, Zyx
    from volseg.storage.object_path import TargetPath
    from volseg.storage.pyramid import Pyramid
    from volseg.storage.target import Target

_THREADS = 4
_ROWS = 64
"""Rows of shards that are listed ahead of the comparison."""
_SLAB = 1 << 16
"""Blocks at least that are compared at a time, in whole rows along z."""


class ShardCheck:
    """Compares the marks of a target with its shards, in threads.

    A row of shards along x is one folder, so that a run of 10^6 blocks is checked with 10^4 listings.

    Args:
        pyramid: the volumes.
        sizes: bytes of each block's shards in all volumes, by block number; `UNKNOWN_SIZE` or `NO_SHARDS`.
    """

    def __init__(self, pyramid: Pyramid, sizes: NDArray[np.int64]) -> None:
        self._pyramid, self._sizes = pyramid, sizes
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(_THREADS + 1, thread_name_prefix="volseg-check")
        self._lost: Future[list[int]] = self._pool.submit(self._find)

    def lost(self) -> list[int]:
        """Wait for the end of the check; returns the blocks that have to be computed again, in order.

        Raises:
            TargetError: a folder cannot be listed.
        """
        try:
            return self._lost.result()
        except OSError as error:
            raise TargetError(
                f"cannot list the shards of {self._pyramid.finest[0].path}: {error}; rerun with --resume"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _find(self) -> list[int]:
        pyramid, lost = self._pyramid, list[int]()
        for at, (grid, targets) in enumerate(zip(pyramid.grid.grids, pyramid.layers, strict=True)):
            numbers = pyramid.grid.numbers(at)
            sizes = self._sizes[numbers.start : numbers.stop]
            if (sizes >= UNKNOWN_SIZE).any():
                lost += [numbers.start + number for number in self._find_in(grid, targets, sizes)]
        return lost

    def _find_in(self, grid: BlockGrid, targets: Sequence[Target], sizes: NDArray[np.int64]) -> list[int]:
        """Blocks of one grid, by their number in it; slab by slab, so that memory does not grow with the grid."""
        nz, ny, nx = grid.counts
        depth, lost = -(-_SLAB // (ny * nx)), list[int]()
        for start in range(0, nz, depth):
            rows = range(start, min(start + depth, nz))
            slab = sizes[rows.start * ny * nx : rows.stop * ny * nx]
            if (slab >= UNKNOWN_SIZE).any() and not self._stop.is_set():
                lost += [start * ny * nx + number for number in self._find_in_slab(grid, rows, targets, slab)]
            release_pages(self._sizes)
        return lost

    def _find_in_slab(
        self, grid: BlockGrid, rows: range, targets: Sequence[Target], sizes: NDArray[np.int64]
    ) -> list[int]:
        """Blocks of some rows along z, by their number in them."""
        found, present, shards = np.zeros((3, len(sizes)), np.int64)
        for target in targets:
            for part in target.parts:  # those of a coarser part have the same numbers
                self._add(part, target.shard, grid, rows, sizes, found, present)
                shards += _shards_per_block(grid, rows, target.shard) * max(target.channels, 1)
        differs = (sizes > UNKNOWN_SIZE) & (found != sizes)
        lost = (sizes >= UNKNOWN_SIZE) & ((present != shards) | differs)
        numbers: list[int] = np.flatnonzero(lost).tolist()
        return numbers

    def _add(
        self,
        target: Target,
        shard: Zyx,
        grid: BlockGrid,
        rows: range,
        marked: NDArray[np.int64],
        found: NDArray[np.int64],
        present: NDArray[np.int64],
    ) -> None:
        """Add the bytes and the number of a target's shards to their blocks."""
        first, stop = (span[2] for span in _shard_spans(grid, shard, rows))
        _, _, nx = grid.counts
        block_x = np.arange(first, stop) * shard[2] // grid.block[2] - grid.offset[2]
        # A few rows ahead: all futures of a large target at once would be many.
        waiting: list[tuple[int, Future[NDArray[np.int64]]]] = []
        for base, folder in self._folders(target, shard, grid, rows, marked):
            waiting.append((base, self._pool.submit(_row_sizes, folder, first, stop)))
            if len(waiting) >= _ROWS:
                _fold(*waiting.pop(0), block_x, nx, found, present)
        for row in waiting:
            _fold(*row, block_x, nx, found, present)

    def _folders(
        self, target: Target, shard: Zyx, grid: BlockGrid, rows: range, marked: NDArray[np.int64]
    ) -> Iterator[tuple[int, TargetPath]]:
        """First block in `rows` of each row of shards that belongs to a marked block, and the row's folder."""
        _, ny, nx = grid.counts
        (z0, y0, _), (z1, y1, _) = _shard_spans(grid, shard, rows)
        for channel in range(max(target.channels, 1)):
            for z in range(z0, z1):
                for y in range(y0, y1):
                    block_z, block_y = (
                        p * s // b - o
                        for p, s, b, o in zip((z, y), shard[:2], grid.block[:2], grid.offset[:2], strict=True)
                    )
                    base = ((block_z - rows.start) * ny + block_y) * nx
                    if self._stop.is_set():
                        return
                    if (marked[base : base + nx] >= UNKNOWN_SIZE).any():
                        yield base, target.shard_folder(channel, z, y)


def _shard_spans(grid: BlockGrid, shard: Zyx, rows: range) -> tuple[Zyx, Zyx]:
    """First shard of some rows of blocks of a run's region along z, y, x, and the one after its last."""
    start, stop = list(grid.region.start), list(grid.region.stop)
    start[0] = max(start[0], (grid.offset[0] + rows.start) * grid.block[0])
    stop[0] = min(stop[0], (grid.offset[0] + rows.stop) * grid.block[0])
    z, y, x = ((a // s, -(-b // s)) for a, b, s in zip(start, stop, shard, strict=True))
    return (z[0], y[0], x[0]), (z[1], y[1], x[1])


def _shards_per_block(grid: BlockGrid, rows: range, shard: Zyx) -> NDArray[np.int64]:
    """Number of shards of each block of some rows: those at the edges of the region may have fewer."""
    origin, counts = (grid.offset[0] + rows.start, *grid.offset[1:]), (len(rows), *grid.counts[1:])
    axes = [
        np.bincount(np.arange(a, b) * s // n - o, minlength=count)
        for a, b, s, n, o, count in zip(
            *_shard_spans(grid, shard, rows), shard, grid.block, origin, counts, strict=True
        )
    ]
    product: NDArray[Any] = axes[0][:, None, None] * axes[1][:, None] * axes[2]
    return product.ravel()


def _row_sizes(folder: TargetPath, first: int, stop: int) -> NDArray[np.int64]:
    """Bytes of the shards in a folder, by their number along x from `first`; 0 for a missing one."""
    sizes = np.zeros(stop - first, np.int64)
    if isinstance(folder, ObjectPath):
        for file in folder.files():
            if file.name.isdecimal() and first <= int(file.name) < stop:
                sizes[int(file.name) - first] = file.stat().st_size
        return sizes
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.isdecimal() and first <= int(entry.name) < stop:
                    with suppress(FileNotFoundError):  # deleted meanwhile, by a block that is found to be empty
                        sizes[int(entry.name) - first] = entry.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        pass
    return sizes


def _fold(
    base: int,
    row: Future[NDArray[np.int64]],
    block_x: NDArray[np.int64],
    nx: int,
    found: NDArray[np.int64],
    present: NDArray[np.int64],
) -> None:
    """Add a row of shards to the blocks of its row."""
    sizes = row.result()
    found[base : base + nx] += np.bincount(block_x, sizes, minlength=nx).astype(np.int64)
    present[base : base + nx] += np.bincount(block_x, sizes > 0, minlength=nx).astype(np.int64)
