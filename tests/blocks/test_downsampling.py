"""A coarser level is recognised by its shape, and the box in it contains all voxels that may represent a box."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.blocks import Box, LevelScale
from volseg.errors import GridError

SHAPES = st.tuples(*[st.integers(1, 200)] * 3)


def shrunk(shape: tuple[int, ...], factors: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-n // f) for n, f in zip(shape, factors, strict=True))


@given(SHAPES, st.tuples(*[st.integers(1, 40)] * 3), st.data())
def test_every_level_is_recognised_and_its_box_contains_the_voxels_of_a_box(
    shape: tuple[int, int, int], factors: tuple[int, int, int], data: st.DataObject
) -> None:
    coarser = LevelScale.between(shape, shrunk(shape, factors))
    limits = zip(coarser.min_factor, coarser.max_factor, strict=True)
    for n, m, f, (smallest, largest) in zip(shape, coarser.shape, factors, limits, strict=True):
        assert smallest <= f <= largest or m == 1
        assert -(-n // smallest) == -(-n // largest) == m
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    found = coarser.box(Box(start, stop))
    for a, b, f, low, high, m in zip(start, stop, factors, found.start, found.stop, coarser.shape, strict=True):
        assert 0 <= low <= a // f <= (b - 1) // f < high <= m


@given(SHAPES, st.tuples(*[st.integers(1, 12)] * 3))
def test_the_box_is_exact_if_the_shapes_leave_one_factor(
    shape: tuple[int, int, int], factors: tuple[int, int, int]
) -> None:
    coarser = LevelScale.between(shape, shrunk(shape, factors))
    if coarser.min_factor == coarser.max_factor:
        whole = coarser.box(Box.of_shape(shape))
        assert whole == Box.of_shape(coarser.shape)
        first = coarser.box(Box((0, 0, 0), tuple(min(f, n) for f, n in zip(coarser.min_factor, shape, strict=True))))
        assert first.shape == (1, 1, 1)


def test_a_level_halved_again_and_again_is_a_level() -> None:
    levels: list[Any] = [(2047, 4099, 1001)]
    for power in range(1, 5):
        levels.append(shrunk(levels[-1], (2, 2, 2)))
        assert LevelScale.between(levels[0], levels[-1]).min_factor == (2**power,) * 3


@pytest.mark.parametrize("coarse", [(30, 513, 512), (30, 512, 300), (31, 512, 512), (30, 511, 512)])
def test_another_shape_is_refused(coarse: tuple[int, int, int]) -> None:
    with pytest.raises(GridError, match=r"is not \(30, 512, 512\) divided by whole numbers"):
        LevelScale.between((30, 512, 512), coarse)
