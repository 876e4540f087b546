"""The computed read amplification equals counting the chunks of each block."""

from __future__ import annotations

import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volseg.blocks import (
    BlockGrid,
    Box,
    Footprint,
    Tiling,
    boxes_along,
    count_chunk_decodes,
    read_amplification,
    union_read_box,
)
from volseg.blocks.mirror import mirror_span
from volseg.ops import read_reflected

FLAT = Footprint((0, 9, 9), (0, 9, 9), (1, 2, 2), (0, 0, 0), (1, 2, 2), (0, 8, 8))
DEEP = Footprint((5, 5, 5), (5, 5, 5), (2, 2, 2), (0, 0, 0), (2, 2, 2), (4, 4, 4))
UNPADDED = Footprint((0, 7, 7), (0, 7, 7), (1, 2, 2), (0, 6, 6), (1, 14, 14), (0, 6, 6))
SIZES = st.integers(1, 17)


@st.composite
def grids(draw: st.DrawFn) -> BlockGrid:
    shape = draw(st.tuples(SIZES, SIZES, SIZES))
    shard = tuple(2 * n for n in draw(st.tuples(*[st.integers(1, 4)] * 3)))
    start = tuple(draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    return BlockGrid.over(shape, shard, shard, Box(start, stop))


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    footprint = draw(st.sampled_from([FLAT, DEEP, UNPADDED]))
    core = tuple(s * draw(st.integers(1, 4)) for s in footprint.stride)
    more = draw(st.integers(0, 3))
    axes = zip(footprint.margin, footprint.stride, footprint.reach_before, strict=True)
    return Tiling(footprint, core, tuple(m + (s * more if reach else 0) for m, s, reach in axes))


@settings(max_examples=60)
@given(grids(), st.lists(tilings(), min_size=1, max_size=2), st.tuples(*[st.integers(1, 6)] * 3))
def test_the_amplification_equals_counting_block_by_block(
    grid: BlockGrid, run_tilings: list[Tiling], chunk: tuple[int, int, int]
) -> None:
    """Reference: the chunks that contain the voxels of each read box, from a mirrored array of chunk indices."""
    in_chunk = [np.arange(n) // c for n, c in zip(grid.shape, chunk, strict=True)]
    boxes = [union_read_box(run_tilings, grid.box(number)) for number in grid.numbers()]
    decoded = [
        set(
            product(
                *(read_reflected(*axis).tolist() for axis in zip(in_chunk, zip(box.start), zip(box.stop), strict=True))
            )
        )
        for box in boxes
    ]
    touched = set(product(*(along[at].tolist() for along, at in zip(in_chunk, grid.region.slices, strict=True))))
    assert read_amplification(grid, run_tilings, chunk) == pytest.approx(sum(map(len, decoded)) / len(touched))


@settings(max_examples=60)
@given(st.data(), tilings(), st.integers(1, 40))
def test_counts_of_many_blocks_are_those_of_each(data: st.DataObject, tiling: Tiling, chunk: int) -> None:
    """Most of these blocks read inside the volume, and are counted by arithmetic."""
    length, block = data.draw(st.integers(1, 400)), 2 * data.draw(st.integers(1, 6))
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    grid = BlockGrid.over((2, length, 2), (2, block, 2), (2, 2, 2), Box((0, start, 0), (2, stop, 2)))
    boxes = [union_read_box([tiling], box) for box in boxes_along(grid, 1)]
    spans = [mirror_span(box.start[1], box.stop[1], length) for box in boxes]
    expected = sum((high - 1) // chunk - low // chunk + 1 for low, high in spans)
    assert count_chunk_decodes(grid, [tiling], (length + 99, chunk, length + 99)) == expected


def test_a_volume_of_a_million_blocks_along_each_axis_is_counted_at_once() -> None:
    grid = BlockGrid.over((10**6, 10**9, 10**9), (16, 10**6, 10**6), (16, 10**6, 10**6))
    started = time.process_time()
    long = BlockGrid.over((1, 1, 2**50), (1, 1, 1024), (1, 1, 1024))
    assert count_chunk_decodes(long, [Tiling(FLAT, (1, 2, 1024), (0, 0, 8))], (1, 1, 999_983)) > long.count
    assert read_amplification(grid, [Tiling(FLAT, (1, 1000, 1000), (0, 8, 8))], (16, 1000, 1000)) > 1
    assert time.process_time() - started < 1


@given(grids())
def test_boxes_along_the_axes_span_every_write_box(grid: BlockGrid) -> None:
    axes = [[(box.start[axis], box.stop[axis]) for box in boxes_along(grid, axis)] for axis in range(3)]
    for number, spans in enumerate(product(*axes)):
        assert grid.box(number) == Box(*zip(*spans, strict=True))
    assert [len(spans) for spans in axes] == list(grid.counts)


def test_blocks_that_read_whole_chunks_decode_each_once() -> None:
    grid = BlockGrid.over((8, 64, 64), (4, 32, 32), (4, 32, 32))
    alone = Tiling(FLAT, (1, 32, 32), (0, 0, 0))
    assert read_amplification(grid, [alone], (4, 16, 16)) == 1
    assert read_amplification(grid, [alone], (8, 16, 16)) == 2


def test_a_billion_blocks_cost_what_their_axes_do() -> None:
    grid = BlockGrid.over((64_000, 512_000, 512_000), (64, 512, 512), (64, 512, 512))
    started = time.perf_counter()
    amplification = read_amplification(grid, [Tiling(FLAT, (1, 512, 512), (0, 64, 64))], (64, 64, 64))
    assert amplification == pytest.approx((10 / 8) ** 2, rel=1e-2)
    assert time.perf_counter() - started < 1
