"""Seams in a map, whoever wrote it: steps at the faces of its blocks, measured in windows spread over it.

windows over faces, or long ones if the block shape is to be searched -> on workers, read and measured until enough
of them hold something -> scores
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import Box, to_zyx, zip3
from volseg.ops.seam_scores import MIN_EXCESS, score_faces, search_faces
from volseg.ops.seams import PlaneSteps, grey_level, min_extent, plane_steps
from volseg.storage import VolumeRef, open_readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from volseg.blocks import Zyx
    from volseg.cluster import Executor, Progress
    from volseg.ops.seam_scores import FaceScore

MAP_TYPES = ("uint8", "uint16", "float16", "float32", "float64")
"""Types of probabilities."""
_WINDOWS = 24
"""Windows along each axis that are measured, at most."""
_CANDIDATES = 4 * _WINDOWS
"""Windows that are read to find these: many places hold no tissue."""
_SECONDS = 60.0
"""After which no window along an axis is begun."""
_MIN_RANGE = 16
"""Grey levels within a window that holds something."""
_FACE_WINDOWS = ((64, 32, 256), (4, 256, 256), (4, 256, 256))
"""Voxels (z, y, x) of windows over faces across z, y, x, if blocks are not larger."""
_SEARCH_WINDOWS = ((256, 32, 256), (2, 4096, 64), (2, 64, 4096))
"""Voxels of windows in which periods are searched."""


@dataclass(frozen=True)
class SeamScores:
    """What the statistic says of a map.

    Attributes:
        block: shape (z, y, x) of which faces were scored; 0 along an axis where none was found.
        known: whether it was given or recorded, and not searched.
        windows: that were measured.
        voxels: of these.
        faces: their scores, in sections and across them.
    """

    block: Zyx
    known: bool
    windows: int
    voxels: int
    faces: tuple[FaceScore, ...]

    @property
    def is_seamed(self) -> bool:
        """Whether faces of blocks stand out."""
        return any(face.is_seam for face in self.faces)

    @property
    def is_measured(self) -> bool:
        """Whether any face could be scored."""
        return any(face.faces for face in self.faces)

    def to_json(self) -> dict[str, Any]:
        """The scores as JSON."""
        return {"seamed": self.is_seamed, "measured": self.is_measured, "smallest_excess": MIN_EXCESS} | asdict(self)


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a map that is measured across one axis."""

    axis: int
    box: Box


def score_map(
    volume: VolumeRef, block: Zyx | None, executor: Executor, progress: Progress, seed: int = 0
) -> SeamScores:
    """Score the faces of a map's blocks.

    Args:
        volume: the map, of one class.
        block: shape of its blocks, from the volume's origin; None to search it.
        executor: whose workers read.
        progress: receives the progress.
        seed: of the choice of windows.

    Raises:
        SourceError: it cannot be read, or holds no probabilities.
    """
    opened = open_map(volume)
    shape, chunk, steps = opened.shape, opened.chunk, list[PlaneSteps]()
    voxels = 0
    for axis in (0, 1, 2):
        progress.stage(f"measuring steps across {'zyx'[axis]}")
        for found, size in _measured(volume, windows_of(shape, block, axis, seed), executor):
            steps.append(found)
            voxels += size
    if block is not None:
        faces = score_faces(steps, [b if b < n else None for b, n in zip3(block, shape)])
    else:
        faces = search_faces(steps, shape, _multiples(chunk, shape))
        found_block = {axis: period for face in faces for axis, period in zip(face.axes, face.period, strict=True)}
        block = to_zyx(found_block.get(axis, 0) for axis in range(3))
        return SeamScores(block, False, len(steps), voxels, tuple(faces))
    return SeamScores(block, True, len(steps), voxels, tuple(faces))


def open_map(volume: VolumeRef) -> Any:
    """Open a volume of probabilities.

    Raises:
        SourceError: it cannot be read, or has another type.
    """
    return open_readable(volume.location, MAP_TYPES, volume.options)


def measure_window(window: Window, volume: VolumeRef) -> tuple[PlaneSteps, int] | None:
    """Measure a window, in the calling process; None if it holds next to nothing."""
    voxels = open_map(volume).read(window.box)
    level = grey_level(voxels)
    if not np.nanmax(voxels, initial=0) - np.nanmin(voxels, initial=0) >= _MIN_RANGE * level:
        return None
    return plane_steps(voxels, window.axis, window.box.start[window.axis], level), voxels.size


def _measured(volume: VolumeRef, windows: Sequence[Window], executor: Executor) -> Iterator[tuple[PlaneSteps, int]]:
    """Measure windows until enough of them hold something, or time is up."""
    started, enough = time.monotonic(), 0

    def wanted() -> Iterator[Window]:
        for window in windows:
            if enough >= _WINDOWS or time.monotonic() - started > _SECONDS:
                return
            yield window

    for found in executor.map(partial(measure_window, volume=volume), wanted()):
        if found is not None:
            enough += 1
            yield found


def windows_of(shape: Zyx, block: Zyx | None, axis: int, seed: int) -> list[Window]:
    """Disjoint windows across an axis, in random order: a voxel that is counted twice would make chance look certain.

    Args:
        shape: of the map.
        block: of its blocks; None for windows as long as possible.
        axis: across which steps are measured.
        seed: of the order.
    """
    sizes = _SEARCH_WINDOWS[axis] if block is None else _FACE_WINDOWS[axis]
    if block is not None and block[axis] >= shape[axis]:
        return []
    spans = [_parts(n, size) for n, size in zip3(shape, sizes)]
    spans[axis] = (
        _parts(shape[axis], sizes[axis]) if block is None else _over_faces(shape[axis], block[axis], sizes[axis])
    )
    counts = [len(span) for span in spans]
    total, rng = prod(counts), np.random.default_rng((seed, axis))
    some = rng.permutation(total) if total <= 1 << 20 else np.unique(rng.integers(0, total, 2 * _CANDIDATES))
    if total > 1 << 20:
        rng.shuffle(some)
    windows = []
    for number in some[:_CANDIDATES]:
        (z0, z1), (y0, y1), (x0, x1) = (
            span[k] for span, k in zip(spans, np.unravel_index(int(number), counts), strict=True)
        )
        windows.append(Window(axis, Box((z0, y0, x0), (z1, y1, x1))))
    return [window for window in windows if window.box.shape[axis] >= min_extent(axis)]


def _parts(length: int, size: int) -> list[tuple[int, int]]:
    """Cut an axis into even parts of about a size.

    >>> _parts(600, 256), _parts(5, 16)
    ([(0, 300), (300, 600)], [(0, 5)])
    """
    count = max(round(length / size), 1)
    bounds = [length * k // count for k in range(count + 1)]
    return list(pairwise(bounds))


def _over_faces(length: int, block: int, size: int) -> list[tuple[int, int]]:
    """Disjoint parts of an axis that hold faces and what is around them.

    >>> _over_faces(200, 96, 256), _over_faces(4000, 1024, 256)
    ([(0, 200)], [(896, 1152), (1920, 2176), (2944, 3200)])
    """
    if 2 * length <= 3 * size:
        return [(0, length)]
    if block >= size:
        return [(face - size // 2, min(face + size // 2, length)) for face in range(block, length, block)]
    step = block * (size // block)
    return [(start, min(start + step, length)) for start in range(block // 2, length, step)]


def _multiples(chunk: Zyx, shape: Zyx) -> list[Zyx]:
    """Chunks, and blocks of several chunks: what other tools write at once."""
    times = sorted({2**k for k in range(6)} | {3, 6})
    blocks = {to_zyx(c * k for c in chunk) for k in times} | {(chunk[0], chunk[1] * k, chunk[2] * k) for k in times}
    return sorted(block for block in blocks if any(b < n for b, n in zip3(block, shape)))
