"""Blocks tile the region exactly once, and block numbers and boxes are a bijection."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.blocks import BlockGrid, Box
from volseg.errors import GridError


@st.composite
def grids(draw: st.DrawFn) -> BlockGrid:
    shape = draw(st.tuples(*[st.integers(1, 23)] * 3))
    shard = draw(st.tuples(*[st.integers(1, 5)] * 3))
    block = tuple(s * draw(st.integers(1, 3)) for s in shard)
    start = tuple(draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    return BlockGrid.over(shape, block, shard, Box(start, stop))


@given(grids())
def test_write_boxes_tile_the_region_exactly_once(grid: BlockGrid) -> None:
    written = np.zeros(grid.shape, int)
    for number in grid.numbers():
        written[grid.box(number).slices] += 1
    inside = np.zeros(grid.shape, bool)
    inside[grid.region.slices] = True
    np.testing.assert_array_equal(written, inside.astype(int))


@given(grids())
def test_no_block_is_larger_than_the_largest(grid: BlockGrid) -> None:
    assert grid.largest_box.voxels == max(grid.box(number).voxels for number in grid.numbers())


@given(grids())
def test_number_and_box_are_a_bijection(grid: BlockGrid) -> None:
    for number in grid.numbers():
        box = grid.box(number)
        assert grid.number(box.start) == number
        assert grid.number(tuple(b - 1 for b in box.stop)) == number


@given(grids(), st.data())
def test_a_voxel_has_the_same_position_in_its_block_for_any_region(grid: BlockGrid, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, grid.count - 1))
    box = grid.box(number)
    for start, block, low in zip(box.start, grid.block, grid.region.start, strict=True):
        assert start % block == 0 or start == low


def test_a_grid_of_a_billion_blocks_costs_nothing() -> None:
    started = time.perf_counter()
    grid = BlockGrid.over((64_000, 512_000, 512_000), (64, 512, 512), (64, 512, 512))
    assert grid.count == 10**9
    assert grid.number(grid.box(987_654_321).start) == 987_654_321
    assert time.perf_counter() - started < 0.1


def test_a_region_grows_outward_to_whole_shards() -> None:
    grid = BlockGrid.over((30, 100, 100), (8, 32, 32), (4, 16, 16), Box((5, 20, 90), (6, 40, 95)))
    assert grid.region == Box((4, 16, 80), (8, 48, 96))


def test_a_block_that_shares_a_shard_with_another_is_refused() -> None:
    with pytest.raises(GridError, match=r"block \(8, 48, 32\) is not made of whole shards \(8, 32, 32\)"):
        BlockGrid.over((30, 100, 100), (8, 48, 32), (8, 32, 32))


@pytest.mark.parametrize("number", [-1, 4])
def test_a_number_outside_the_run_is_refused(number: int) -> None:
    with pytest.raises(GridError, match="there is no block"):
        BlockGrid.over((4, 4, 4), (4, 2, 2), (4, 2, 2)).box(number)


def test_more_blocks_than_can_be_numbered_are_refused() -> None:
    assert BlockGrid.over((1, 1, 2**40), (1, 1, 1), (1, 1, 1)).count == 2**40
    with pytest.raises(GridError, match=f"has {2**41} blocks .* more than 2.40; name a smaller region"):
        BlockGrid.over((1, 1, 2**41), (1, 1, 1), (1, 1, 1))
