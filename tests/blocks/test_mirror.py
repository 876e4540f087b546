"""The mirror is numpy's `reflect`, also if the halo is larger than the axis."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from volseg.blocks import mirror_index, mirror_span


@given(st.integers(1, 9), st.integers(0, 40), st.integers(0, 40))
def test_mirror_index_is_numpys_reflect(length: int, before: int, after: int) -> None:
    padded = np.pad(np.arange(length), (before, after), mode="reflect")
    assert [mirror_index(index, length) for index in range(-before, length + after)] == padded.tolist()


@given(st.integers(1, 12), st.integers(-50, 50), st.integers(1, 60))
def test_mirror_span_is_the_smallest_span_that_contains_all(length: int, start: int, count: int) -> None:
    indices = [mirror_index(index, length) for index in range(start, start + count)]
    assert mirror_span(start, start + count, length) == (min(indices), max(indices) + 1)
