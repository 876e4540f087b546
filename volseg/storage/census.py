"""Census of a volume's chunks before a run: which of those that it reads its store has.

A folder or an object store is listed. A web server lists nothing: a sample of chunks is asked for.
"""

from __future__ import annotations

import json
import os
import random
import re
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import obstore
from zarr.storage import LocalStore

from volseg.blocks import Box
from volseg.errors import SourceError, TargetError
from volseg.storage.chunk_grid import lacks
from volseg.storage.durable import write_whole
from volseg.storage.zarr_store import is_missing_remote, may_list
from volseg.storage.zip_folder import ZipFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Zyx
    from volseg.storage.chunk_grid import Chunked, ChunkGrid
    from volseg.storage.object_path import TargetPath

_T = TypeVar("_T")
_R = TypeVar("_R")
_THREADS = 16
_AHEAD = 64
"""Listings that are under way or wait to be counted."""
_SAMPLE = 64
_ASKED = 1 << 18
"""Chunks of a folder that are looked for one by one, where their names have another form than those of Zarr."""
_EXAMPLES = 3


@dataclass(frozen=True)
class Census:
    """Which chunks of a box the store has.

    Attributes:
        span: numbers of the chunks, (z, y, x).
        checked: number of those that were looked for: all, or a sample.
        absent: number of those that the store lacks.
        examples: keys of a few of these.
        bits: one for each chunk in C order, 1 if it is there, packed; None for a sample.
    """

    span: Box
    checked: int
    absent: int
    examples: tuple[str, ...]
    bits: NDArray[np.uint8] | None = None

    def had(self, number: Zyx) -> bool:
        """Whether the census found a chunk; False for one that it did not look for."""
        offset = [n - a for n, a in zip(number, self.span.start, strict=True)]
        if self.bits is None or any(not 0 <= n < size for n, size in zip(offset, self.span.shape, strict=True)):
            return False
        at = int(np.ravel_multi_index(offset, self.span.shape))
        return bool(self.bits[at >> 3] & (0x80 >> (at & 7)))

    @property
    def digest(self) -> str:
        """Digest of the bits; empty for a sample."""
        return "" if self.bits is None else blake2b(self._header + self.bits.tobytes(), digest_size=16).hexdigest()

    @property
    def _header(self) -> bytes:
        """The span, as the first line of a file."""
        return json.dumps({"start": self.span.start, "stop": self.span.stop}).encode() + b"\n"

    def write(self, folder: TargetPath) -> None:
        """Write the bits, if there are any, under their digest, unless they are there; whole, and on the disk.

        Raises:
            TargetError: it cannot be written.
        """
        if self.bits is None:
            return
        with suppress(TargetError):  # a damaged file would fail every block
            read_census(folder, self.digest)
            return
        path = _path(folder, self.digest)
        try:
            write_whole(path, self._header + zlib.compress(self.bits.tobytes()))
        except TargetError:
            raise
        except OSError as error:
            raise TargetError(f"cannot write {path}: {error.strerror or error}; free some space") from error


def read_census(folder: TargetPath, digest: str) -> Census:
    """Read the bits of a census; it names no examples.

    Raises:
        TargetError: they are missing or damaged.
    """
    path = _path(folder, digest)
    try:
        header, _, packed = path.read_bytes().partition(b"\n")
        span = Box(**{name: tuple(values) for name, values in json.loads(header).items()})
        census = _counted(span, np.frombuffer(zlib.decompress(packed), np.uint8))
    except Exception as error:  # of JSON, of zlib, of a box
        raise TargetError(f"cannot read the census of chunks in {path}: {error}; rerun with --resume") from error
    if census.digest != digest:
        raise TargetError(f"the census of chunks in {path} is damaged; rerun with --resume")
    return census


def _path(folder: TargetPath, digest: str) -> TargetPath:
    return folder / f"chunks-{digest}.bin"


def take_census(volume: Chunked, box: Box) -> Census:
    """Look which chunks of a box are stored.

    Args:
        volume: the source.
        box: of its voxels.

    Raises:
        SourceError: a folder cannot be listed, or the source is gone.
    """
    grid = volume.chunk_grid
    span, naming = grid.covering(box), grid.naming()
    bits = np.zeros(-(-prod(span.shape) // 8), np.uint8)
    try:
        if naming is None and grid.probe is None and isinstance(grid.store, LocalStore) and prod(span.shape) <= _ASKED:
            return _confirmed(_query_chunks(grid, span, bits), volume)
        if naming is None or not may_list(grid.store):
            return _sampled(grid, span)
        for rows in _listed(grid, span, *naming):
            at = _offsets(grid, span, rows)
            np.bitwise_or.at(bits, at >> 3, (0x80 >> (at & 7)).astype(np.uint8))
    except OSError as error:
        raise SourceError(f"the chunks of {volume.location} cannot be listed: {error}") from error
    except Exception:  # each object store raises errors of its own; one that does not list is no fault
        return _sampled(grid, span)
    return _confirmed(_counted(span, bits, grid), volume)


def _confirmed(census: Census, volume: Chunked) -> Census:
    if census.absent:
        volume.confirm()
    return census


def _query_chunks(grid: ChunkGrid, span: Box, bits: NDArray[np.uint8]) -> Census:
    """Look for each chunk of a folder whose names are not listed."""
    with ThreadPoolExecutor(_THREADS) as pool:
        there = pool.map(lambda at: not lacks(grid.store, grid.key(_number(span, at))), range(prod(span.shape)))
        packed = np.packbits(np.fromiter(there, bool))
    bits[:] = packed
    return _counted(span, bits, grid)


def _counted(span: Box, bits: NDArray[np.uint8], grid: ChunkGrid | None = None) -> Census:
    """The census of some bits, with examples if the grid is given."""
    count = prod(span.shape)
    absent = count - int(np.bitwise_count(bits).sum(dtype=np.int64))
    gaps = np.flatnonzero(bits != 255)[: _EXAMPLES + 1] if grid and absent else np.zeros(0, int)
    places = [int(byte) * 8 + bit for byte in gaps for bit in range(8) if not bits[byte] & (0x80 >> bit)]
    keys = tuple(grid.key(_number(span, at)) for at in places if at < count)[:_EXAMPLES] if grid else ()
    return Census(span, count, absent, keys, bits)


def _number(span: Box, at: int) -> Zyx:
    z, y, x = (int(n) + a for n, a in zip(np.unravel_index(at, span.shape), span.start, strict=True))
    return z, y, x


def _offsets(grid: ChunkGrid, span: Box, stored: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of chunks in a census, from their numbers along the stored axes, (chunks, axes); others are left out."""
    channels = np.array(grid.stored((0, 0, 0)))
    others = grid.layout.other_axes
    inside = (stored[:, others] == channels[others]).all(axis=1)
    numbers = stored[:, grid.layout.axes] - span.start
    inside &= ((numbers >= 0) & (numbers < span.shape)).all(axis=1)
    places: NDArray[np.int64] = numbers[inside] @ np.array([span.shape[1] * span.shape[2], span.shape[2], 1])
    return places


def _listed(grid: ChunkGrid, span: Box, prefix: str, separator: str) -> Iterator[NDArray[np.int64]]:
    """Numbers along the stored axes of the chunks that a store lists, (chunks, axes), in parts."""
    store: Any = grid.store
    pattern = re.compile(re.escape(prefix) + re.escape(separator).join([r"(\d+)"] * len(grid.layout.shape)))
    with ThreadPoolExecutor(_THREADS) as pool:
        if isinstance(store, ZipFolder):
            yield from _parsed(store.keys, pattern)
        elif not isinstance(store, LocalStore):
            parts = _prefixes(grid, span, prefix, separator)
            yield from _ahead(pool, partial(_remote_numbers, store.store, pattern), parts)
        elif separator == "/":
            rows = ((store.root / (prefix + "/".join(map(str, outer))), outer) for outer in grid.rows(span))
            yield from _ahead(pool, _folder_numbers, rows)
        else:
            with os.scandir(store.root) as entries:
                yield from _parsed((entry.name for entry in entries), pattern)


def _prefixes(grid: ChunkGrid, span: Box, prefix: str, separator: str) -> Iterator[str | None]:
    """Parts of a store to list beside each other: one for each number along the outermost axis of the volume."""
    if separator != "/":
        yield None
        return
    seen: str | None = None
    depth = min(grid.layout.axes) + 1
    for outer in grid.rows(span):
        part = prefix + "/".join(map(str, outer[:depth]))
        if part != seen:
            yield part
        seen = part


def _remote_numbers(store: Any, pattern: re.Pattern[str], part: str | None) -> list[NDArray[np.int64]]:
    names = (item["path"] for batch in obstore.list(store, prefix=part) for item in batch)
    return list(_parsed(names, pattern))


def _parsed(names: Iterable[str], pattern: re.Pattern[str]) -> Iterator[NDArray[np.int64]]:
    """Numbers in the names that a pattern matches, a few thousand at a time."""
    rows: list[tuple[str, ...]] = []
    for name in names:
        if match := pattern.fullmatch(name):
            rows.append(match.groups())
        if len(rows) == 1 << 14:
            yield np.array(rows, np.int64)
            rows = []
    if rows:
        yield np.array(rows, np.int64)


def _folder_numbers(row: tuple[Path, tuple[int, ...]]) -> list[NDArray[np.int64]]:
    """Numbers of the chunks in a folder, which are named by that along the last axis."""
    folder, outer = row
    try:
        with os.scandir(folder) as entries:
            last = [int(entry.name) for entry in entries if entry.name.isdecimal()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [np.array([(*outer, number) for number in last], np.int64)] if last else []


def _ahead(pool: ThreadPoolExecutor, call: Callable[[_T], list[_R]], items: Iterable[_T]) -> Iterator[_R]:
    """Results of a call on each item in order, of which few are held at once."""
    waiting: deque[Future[list[_R]]] = deque()
    for item in items:
        waiting.append(pool.submit(call, item))
        if len(waiting) >= _AHEAD:
            yield from waiting.popleft().result()
    for future in waiting:
        yield from future.result()


def _sampled(grid: ChunkGrid, span: Box) -> Census:
    """Ask for some chunks, always the same; those for which the server gives no clear answer do not count."""
    count = prod(span.shape)
    places = random.Random(0).sample(range(count), min(_SAMPLE, count))
    keys = [grid.key(_number(span, at)) for at in sorted(places)]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(grid.probe or partial(_is_there, grid.store), keys))
    absent = [key for key, there in zip(keys, found, strict=True) if there is False]
    return Census(span, len(keys) - found.count(None), len(absent), tuple(absent[:_EXAMPLES]))


def _is_there(store: Any, key: str) -> bool | None:
    """Whether a store has a key; None if that cannot be told."""
    try:
        return not (lacks(store, key) if isinstance(store, LocalStore | ZipFolder) else is_missing_remote(store, key))
    except Exception:  # each store raises errors of its own
        return None
