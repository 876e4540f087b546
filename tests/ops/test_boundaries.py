"""Membrane between touching labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from volseg.errors import ConfigError
from volseg.ops import boundaries

IDS = arrays(np.int16, st.tuples(st.integers(1, 2), st.integers(1, 7), st.integers(1, 7)), elements=st.integers(-1, 3))


def by_brute_force(ids: np.ndarray, width: int) -> np.ndarray:
    """Every voxel against every other of its section."""
    half, left_over = divmod(width, 2)
    membrane = ids == 0
    places = [(y, x) for y in range(ids.shape[1]) for x in range(ids.shape[2])]
    for z, section in enumerate(ids):
        for y, x in places:
            for v, u in places:
                here, there, apart = section[y, x], section[v, u], np.hypot(y - v, x - u)
                if min(here, there) > 0 and here != there:
                    membrane[z, y, x] |= apart <= half or (left_over and here > there and apart <= half + 1)
    return membrane


@settings(max_examples=25)
@given(ids=IDS, width=st.integers(1, 5))
@example(ids=np.array([[[0, 1], [2, 0]]]), width=3)  # cells that meet at a corner alone
@example(ids=np.array([[[1, 0], [0, 2]]]), width=4)
def test_voxels_near_another_cell_are_membrane(ids: np.ndarray, width: int) -> None:
    np.testing.assert_array_equal(boundaries(ids, width), by_brute_force(ids, width))


@settings(max_examples=25)
@given(ids=IDS, width=st.integers(1, 5), turns=st.integers(0, 3), flip=st.booleans())
def test_membrane_is_independent_of_the_orientation(ids: np.ndarray, width: int, turns: int, flip: bool) -> None:
    def rotate(array: np.ndarray) -> np.ndarray:
        return np.rot90(array[..., ::-1] if flip else array, turns, axes=(1, 2))

    np.testing.assert_array_equal(boundaries(rotate(ids), width), rotate(boundaries(ids, width)))


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dtype", [np.uint64, np.int32])
def test_a_straight_border_has_the_given_width(width: int, dtype: type) -> None:
    ids: np.ndarray = np.ones((1, 3, 20), dtype)
    ids[..., 10:] = 2
    assert boundaries(ids, width).sum(axis=2).tolist() == [[width] * 3]


def test_sections_do_not_touch_and_membrane_or_unknown_voxels_are_not_widened() -> None:
    assert not boundaries(np.array([[[1, 1]], [[2, 2]]]), 4).any()
    assert boundaries(np.array([[[1, 1, 0, -1, 2, -1]]]), 2)[0, 0].tolist() == [False, False, True, False, False, False]


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="width 0"):
        boundaries(np.ones((1, 2, 2), int), 0)
