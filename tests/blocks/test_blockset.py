"""Sets of block numbers are sets, whatever their size."""

from __future__ import annotations

import random

import numpy as np
import pytest

from volseg.blocks import BlockGrid, BlockSet, Part, PyramidGrid, pyramid_levels

STOP = 3 << 16
"""Of three pages."""


def numbers(seed: int, count: int) -> set[int]:
    choose = random.Random(seed)
    first = choose.randrange(STOP - 2000)
    return {choose.randrange(STOP) for _ in range(count)} | set(range(first, first + 1500))


@pytest.mark.parametrize("seed", range(5))
def test_operations_are_those_of_sets(seed: int) -> None:
    a, b = numbers(seed, 300), numbers(seed + 100, 10)
    ours, others = BlockSet(a), BlockSet(b)
    assert ours.overlap(others) == len(a & b)
    ours.update(others)
    assert (list(ours), len(ours), list(others)) == (sorted(a | b), len(a | b), sorted(b))
    ours.difference_update(BlockSet(a))
    assert (list(ours), len(ours)) == (sorted(b - a), len(b - a))


@pytest.mark.parametrize("start", [0, 5, 70_001])
def test_flags_say_what_is_in_a_set(start: int) -> None:
    a = numbers(start, 300)
    flags = BlockSet(a).to_flags(start, STOP + 9)
    assert (start + np.flatnonzero(flags)).tolist() == sorted(number for number in a if number >= start)
    again = BlockSet.from_flags(flags, start)
    assert (set(again), len(again)) == ({n for n in a if n >= start}, int(flags.sum()))


@pytest.mark.parametrize("seed", range(3))
def test_parts_share_out_blocks_of_all_levels_and_leave_those_of_several_parts(seed: int) -> None:
    shape = (2, 16 * 21, 16 * 19)
    grid = BlockGrid.over(shape, (2, 16, 16), (2, 16, 16))
    pyramid = PyramidGrid(grid, pyramid_levels(shape, (2, 16, 16), (2, 16, 16), [(1, 2, 2)] * 4))
    choose = random.Random(seed)
    planned = BlockSet(choose.sample(range(grid.count), 150))
    planned.update(pyramid.above(planned))

    def ancestors(number: int) -> set[int]:
        found: set[int] = set()
        parent = pyramid.parent(number)
        while parent is not None:
            found.add(parent)
            parent = pyramid.parent(parent)
        return found

    finest = [number for number in planned if number < grid.count]
    assert set(pyramid.above(finest)) == set().union(*map(ancestors, finest))
    coarse = max(ancestors(finest[0]))
    assert set(pyramid.above([coarse, finest[1]])) == ancestors(coarse) | ancestors(finest[1])
    shares = [Part(k, 3).planned(pyramid, planned) for k in (1, 2, 3)]
    for k, share in enumerate(shares, 1):
        own = [number for number in Part(k, 3).numbers(grid.count) if number in planned]
        others = set(finest).difference(own)
        shared = set().union(*map(ancestors, others))
        assert set(share) == set(own) | (set().union(*map(ancestors, own)) - shared)
