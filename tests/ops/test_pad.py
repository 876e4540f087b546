"""Mirrored reads equal numpy's padding."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from volseg.ops import read_reflected


@given(st.tuples(*[st.integers(1, 6)] * 3), st.tuples(*[st.integers(0, 20)] * 3), st.tuples(*[st.integers(0, 20)] * 3))
def test_a_read_equals_numpys_reflect(shape: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    padded = np.pad(array, list(zip(before, after, strict=True)), mode="reflect")
    start, stop = [-b for b in before], [n + a for n, a in zip(shape, after, strict=True)]
    np.testing.assert_array_equal(read_reflected(array, start, stop), padded)


def test_a_read_inside_the_array_is_a_view() -> None:
    array = np.zeros((4, 5))
    assert np.shares_memory(read_reflected(array, [1, 1], [3, 4]), array)
