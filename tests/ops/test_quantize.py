"""Two lines of arithmetic deserve laws."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from volseg.ops import to_probability, to_uint8


@given(st.floats(0, 1, width=32))
def test_storing_costs_at_most_half_a_step(value: float) -> None:
    stored = to_uint8(np.asarray([value], np.float32))
    assert abs(float(to_probability(stored)[0]) - value) <= 0.5 / 255 + 1e-6


def test_every_byte_survives_the_way_there_and_back() -> None:
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(to_probability(every)), every)


@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_order_is_kept(a: float, b: float) -> None:
    low, high = to_uint8(np.asarray(sorted((a, b)), np.float32))
    assert low <= high
