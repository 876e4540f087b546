"""Levels of a pyramid: shapes, places, and which blocks each block is made of."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.blocks import (
    BlockGrid,
    Box,
    PyramidGrid,
    ceil_to,
    coarser_place,
    level_factors,
    pyramid_levels,
    to_zyx,
    zip3,
)

axes = st.tuples(*[st.integers(1, 40)] * 3)


@st.composite
def pyramids(draw):
    shape, shard = draw(axes), draw(st.tuples(*[st.integers(1, 6)] * 3))
    block = to_zyx(s * draw(st.integers(1, 3)) for s in shard)
    factors = level_factors(shape, shard, draw(st.sampled_from([None, (30.0, 6.0, 6.0), (8.0, 8.0, 8.0)])), 5)
    start = to_zyx(draw(st.integers(0, n - 1)) for n in shape)
    region = Box(start, to_zyx(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)))
    return PyramidGrid(BlockGrid.over(shape, block, shard, region), pyramid_levels(shape, shard, shard, factors))


@given(pyramids())
def test_every_block_is_a_child_of_its_parent_and_the_boxes_fit(pyramid):
    assert pyramid.count == sum(grid.count for grid in pyramid.grids)
    for number in range(pyramid.count):
        level, box = pyramid.locate(number)
        parent = pyramid.parent(number)
        assert number not in pyramid.children(number)
        if parent is None:
            continue
        assert number in pyramid.children(parent)
        above, parent_box = pyramid.locate(parent)
        finer = parent_box
        for at in range(above, level, -1):
            shape = pyramid.levels[at - 2].shape if at > 1 else pyramid.base.shape
            finer = pyramid.levels[at - 1].finer_box(finer, shape)
        assert finer.contains(box)  # nothing of a block goes to another parent
        children = list(pyramid.children(parent))
        assert len(children) == len(set(children))
        assert all(pyramid.parent(child) == parent for child in children)


@given(pyramids())
def test_blocks_of_a_level_are_whole_shards_that_cover_what_is_made_of_the_region(pyramid):
    for at, grid in enumerate(pyramid.grids[1:], 1):
        level = pyramid.levels[at]
        assert grid.shape == level.shape
        assert all(b % s == 0 for b, s in zip3(grid.block, level.shard))
        scaled = [range(a // s, -(-b // s)) for a, b, s in zip3_of(pyramid.base.region, level.scale)]
        assert all(
            r.start >= a and r.stop <= b for r, a, b in zip(scaled, grid.region.start, grid.region.stop, strict=True)
        )


def zip3_of(box, scale):
    return zip(box.start, box.stop, scale, strict=True)


@given(axes, axes)
def test_level_1_has_as_many_shards_as_level_0(shape, shard):
    factors = level_factors(shape, shard, None, 3)
    levels = pyramid_levels(shape, shard, shard, factors)
    if levels:
        first = levels[0]
        counts = [
            prod(ceil_to(n, s) // s for n, s in zip3(*pair)) for pair in ((shape, shard), (first.shape, first.shard))
        ]
        assert counts[0] == counts[1]
        assert all(s % c == 0 for level in levels for s, c in zip3(level.shard, level.chunk))


def test_above_holds_all_ancestors():
    levels = pyramid_levels((8, 64, 64), (8, 8, 8), (8, 8, 8), [(1, 2, 2)] * 4)
    pyramid = PyramidGrid(BlockGrid.over((8, 64, 64), (8, 8, 8), (8, 8, 8)), levels)
    assert [grid.count for grid in pyramid.grids] == [64, 4, 1, 1]
    assert list(pyramid.above([0])) == [64, 68, 69]
    assert list(pyramid.above([0, 63])) == [64, 67, 68, 69]
    assert [pyramid.parent(n) for n in (0, 31, 32, 63, 64, 68, 69)] == [64, 65, 66, 67, 68, 69, None]


@pytest.mark.parametrize(
    ("shape", "shard", "voxel_nm", "factors"),
    [
        ((125, 1250, 1250), (16, 512, 512), (40, 4, 4), [(1, 2, 2)] * 2),
        ((2000, 2000, 2000), (64, 64, 64), (8, 8, 8), [(2, 2, 2)] * 2),
        ((2000, 2000, 2000), (1, 2000, 2000), (8, 8, 8), [(1, 2, 2), (2, 1, 1), (2, 2, 2)]),
        ((16, 10_240, 10_240), (16, 1024, 1024), (30, 4, 4), [(1, 2, 2)] * 3 + [(2, 2, 2)] * 2),
        ((1, 4096, 4096), (1, 1024, 1024), None, [(1, 2, 2)] * 3),
    ],
)
def test_axes_are_halved_until_voxels_are_cubic(shape, shard, voxel_nm, factors):
    assert list(level_factors(shape, shard, voxel_nm)) == factors


def test_a_coarser_voxel_lies_in_the_middle_of_its_voxels():
    size, start = coarser_place((40, 4, 4), (400, 8, 0), (1, 8, 8))
    assert list(size) == [40, 32, 32]
    assert list(start) == [400, 8 + 3.5 * 4, 3.5 * 4]  # the mean of the centres 0, 4, .., 28 is 14
