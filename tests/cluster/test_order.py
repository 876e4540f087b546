"""Blocks of coarser levels are made after all that they are made of, whatever ends when."""

from __future__ import annotations

import random

import pytest

from volseg.blocks import BlockGrid, BlockSet, Box, PyramidGrid, pyramid_levels
from volseg.cluster import BlockOrder

SHAPE, SHARD = (16, 96, 80), (8, 8, 8)
LEVELS = pyramid_levels(SHAPE, SHARD, SHARD, [(1, 2, 2)] * 2 + [(2, 2, 2)] * 2)


def drive(order: BlockOrder, pyramid: PyramidGrid, rng: random.Random, *, failing: float = 0.0) -> dict[int, list[int]]:
    """Turns at which each block was done, with a few in flight that end in any order."""
    turns: dict[int, list[int]] = {}
    flying: list[int] = []
    turn = 0
    while True:
        while len(flying) < 7 and (number := next(order, None)) is not None:
            assert number not in flying
            flying.append(number)
        if not flying:
            return turns
        number, turn = flying.pop(rng.randrange(len(flying))), turn + 1
        if rng.random() < failing:
            order.given_up(number)
        else:
            turns.setdefault(number, []).append(turn)
            order.done(number)


@pytest.mark.parametrize("seed", range(12))
def test_a_block_is_newer_than_all_it_is_made_of(seed: int) -> None:
    rng = random.Random(seed)
    region = Box((8, 16, 8), SHAPE) if seed % 3 == 0 else None
    pyramid = PyramidGrid(BlockGrid.over(SHAPE, SHARD, SHARD, region), LEVELS)
    base = pyramid.base.count
    done = BlockSet(number for number in range(base) if rng.random() < (0.0, 0.5, 0.98)[seed % 3])
    planned = None
    if seed % 2:
        planned = BlockSet(number for number in range(base) if rng.random() < 0.5)
        for number in pyramid.above(planned):
            planned.add(number)
        done = BlockSet(number for number in done if number in planned)
    # Of what is done above, some turns out to be lost when the blocks of level 0 have been sent.
    coarser = BlockSet(n for n in range(base, pyramid.count) if all(c in done for c in pyramid.children(n)))
    coarser = BlockSet(n for n in coarser if planned is None or n in planned)
    lost = [number for number in (*done, *coarser) if rng.random() < 0.1]

    def finest():
        yield from (n for n in range(base) if n not in done and (planned is None or n in planned))
        for number in lost:
            coarser.discard(number)
        yield from (number for number in lost if number < base)

    order = BlockOrder(finest(), pyramid, done, coarser, planned)
    turns = drive(order, pyramid, rng)
    assert order.left == 0
    for number in range(base, pyramid.count):
        if planned is not None and number not in planned:
            assert number not in turns
            continue
        newest = max((turns[child][-1] for child in pyramid.children(number) if child in turns), default=0)
        assert newest == 0 or turns[number][-1] > newest
        assert number in turns or number not in lost


def test_nothing_is_made_of_blocks_that_were_given_up() -> None:
    pyramid = PyramidGrid(BlockGrid.over(SHAPE, SHARD, SHARD), LEVELS)
    order = BlockOrder(range(pyramid.base.count), pyramid, BlockSet(), BlockSet(), count=pyramid.base.count)
    turns = drive(order, pyramid, random.Random(1), failing=0.05)
    finest = {number for number in range(pyramid.base.count) if number not in turns}
    assert finest
    above = set(pyramid.above(finest))
    assert not above & turns.keys()
    assert 0 < len(above) <= order.left
