"""Statistics of a volume's tissue, section by section, computed before the blocks that need them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import Box, ceil_to
from volseg.errors import SourceError
from volseg.ops.moments import TILE, Moments, NanTiles, SectionSum
from volseg.ops.normalize import normalization_mode, section_moments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from volseg.blocks import Zyx
    from volseg.storage.block_mask import KeptBlocks
    from volseg.storage.readers import Readable

_MAX_DEPTH, _MIN_DEPTH = 64, 8
"""Sections of a slab: as deep as a chunk, but no deeper and, if chunks are whole in it, no thinner than these."""
_WINDOW_BYTES = 1 << 26
"""Size of one read, unless a chunk is larger."""


@dataclass(frozen=True, slots=True)
class SlabStatistics:
    """Statistics of some sections.

    Attributes:
        first: the first section.
        moments: of each section, for each normalisation mode.
        fills: values other than 0 that were taken as no tissue.
        not_finite: sections that hold NaN or infinity, around the tissue.
    """

    first: int
    moments: tuple[tuple[Moments, ...], ...]
    fills: tuple[float, ...]
    not_finite: tuple[int, ...] = ()


def slabs(shape: Zyx, chunk: Zyx, first: int, stop: int) -> Iterator[tuple[int, int]]:
    """Cut the sections [first, stop) at the borders of chunks, so that each chunk of up to 64 sections is decoded once.

    >>> list(slabs((30, 8, 8), (16, 8, 8), 2, 30)), list(slabs((20, 8, 8), (3, 8, 8), 0, 20))
    ([(2, 16), (16, 30)], [(0, 6), (6, 12), (12, 18), (18, 20)])
    """
    depth = _depth(chunk) * max(1, _MIN_DEPTH // _depth(chunk))
    yield from _steps(first, min(stop, shape[0]), depth)


def slab_statistics(
    volume: Readable, sections: tuple[int, int], modes: Sequence[str], region: Box, mask: KeptBlocks | None = None
) -> SlabStatistics:
    """Read sections [first, stop) and return the moments of their tissue.

    Args:
        volume: the source.
        sections: first and stop.
        modes: names of normalisation modes.
        region: voxels that count, along y and x.
        mask: the voxels of its blocks count, NaN only where the mask itself is; None for all.

    Raises:
        SourceError: voxels are NaN or infinite in the midst of tissue, or cannot be read.
    """
    numbers = range(*sections)
    dtype = np.dtype(volume.dtype)
    measures = [normalization_mode(mode).measure_of_values for mode in modes]
    collects = [measure is not None for measure in measures]
    sums = {collect: [SectionSum(dtype, collect) for _ in numbers] for collect in set(collects)}
    windows = list(_windows(volume, sections, region))
    nan_tiles = [NanTiles(region.start[1:], region.stop[1:]) for _ in numbers] if dtype.kind == "f" else []
    _add_windows(volume, windows, sections[0], list(sums.values()), nan_tiles, mask)
    for z, tiles in zip(numbers, nan_tiles, strict=False):
        refuse_damage(tiles, z, volume.location)
    for one in sums.values():
        # A value that is known as no tissue from a later window was counted in the earlier ones.
        if len({window.start[0] for window in windows}) < len(windows) and any(section.fills for section in one):
            again = [SectionSum(dtype, section.collect, set(section.fills)) for section in one]
            _add_windows(volume, windows, sections[0], [again], [], mask)
            one[:] = again
    moments = [
        tuple(section_moments(section, measure) for section in sums[collect])
        for measure, collect in zip(measures, collects, strict=True)
    ]
    fills = {value for one in sums.values() for section in one for value in section.fills}
    not_finite = tuple(z for z, tiles in zip(numbers, nan_tiles, strict=False) if tiles.has_non_finite)
    return SlabStatistics(sections[0], tuple(moments), tuple(sorted(fills)), not_finite)


def refuse_damage(tiles: NanTiles, section: int, name: str) -> None:
    """Refuse a section that holds NaN or infinity in the midst of tissue.

    Raises:
        SourceError: names the first such voxel.
    """
    if (voxel := tiles.damage()) is not None:
        raise SourceError(
            f"{name} holds NaN or infinity in the midst of tissue, for example at {(section, *voxel)} (z, y, x); "
            "repair it, or leave it out with --roi or --mask"
        )


def _add_windows(
    volume: Readable,
    windows: Sequence[Box],
    first: int,
    sums: Sequence[Sequence[SectionSum]],
    nan_tiles: Sequence[NanTiles],
    mask: KeptBlocks | None,
) -> None:
    """Add windows to the sums of their sections, from section `first` on; the next window is read meanwhile."""
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(volume.read, windows[0])
        for number, box in enumerate(windows):
            raw = following.result()
            if number + 1 < len(windows):
                following = reader.submit(volume.read, windows[number + 1])
            within = slice(box.start[0] - first, box.stop[0] - first)
            _add_window(raw, box, [one[within] for one in sums], nan_tiles[within], mask)


def _add_window(
    raw: NDArray[Any],
    box: Box,
    sums: Sequence[Sequence[SectionSum]],
    nan_tiles: Sequence[NanTiles],
    mask: KeptBlocks | None,
) -> None:
    """Add the sections of a box; voxels that do not count become 0."""
    if mask is not None:
        raw = np.where(mask.contain(box), raw, raw.dtype.type(0))
    if raw.dtype.kind == "f":
        raw = _without_nan(raw, box, nan_tiles, mask)
    for number, counted in enumerate(raw):
        for one in sums:
            one[number].add(counted, box.start[1:])


def _without_nan(raw: NDArray[Any], box: Box, nan_tiles: Sequence[NanTiles], mask: KeptBlocks | None) -> NDArray[Any]:
    """Note where a box holds NaN or infinity in the mask, and replace them all by 0."""
    finite = np.isfinite(raw)
    zero = raw.dtype.type(0)
    judged = raw
    if mask is not None and not finite.all():
        judged = np.where(finite | mask.voxels.read(box), raw, zero)
    for tiles, section in zip(nan_tiles, judged, strict=False):
        tiles.add(section, box.start[1:])
    return raw if finite.all() else np.where(finite, raw, zero)


def _windows(volume: Readable, sections: tuple[int, int], region: Box) -> Iterator[Box]:
    """Cut sections into windows, at borders of tiles and, unless these rarely meet, of chunks."""
    depth = _depth(volume.chunk)
    voxels = _WINDOW_BYTES // (depth * np.dtype(volume.dtype).itemsize)
    step_y, step_x = (lcm(TILE, n) for n in volume.chunk[1:])
    if step_y * step_x > 4 * voxels:
        step_y = step_x = TILE
    width = max(step_x, min(voxels // step_y, ceil_to(region.stop[2], step_x)) // step_x * step_x)
    height = max(step_y, voxels // width // step_y * step_y)
    for z, z_stop in _steps(*sections, depth):
        for y, y_stop in _steps(region.start[1], region.stop[1], height):
            for x, x_stop in _steps(region.start[2], region.stop[2], width):
                yield Box((z, y, x), (z_stop, y_stop, x_stop))


def _steps(start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    """Cut [start, stop) at the multiples of a step."""
    while start < stop:
        end = min((start // step + 1) * step, stop)
        yield start, end
        start = end


def _depth(chunk: Zyx) -> int:
    return min(chunk[0], _MAX_DEPTH)


def moments_in_order(slabs: Sequence[SlabStatistics], mode: int) -> list[Moments]:
    """Moments of the sections of some slabs in their order, for one of the modes."""
    return [moments for slab in sorted(slabs, key=lambda slab: slab.first) for moments in slab.moments[mode]]
