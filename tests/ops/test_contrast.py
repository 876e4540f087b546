"""Grey values drawn black and white."""

from __future__ import annotations

import numpy as np

from volseg.ops.contrast import grey_range


def test_fill_and_non_finite_values_are_ignored():
    values = np.concatenate([np.zeros(500), np.full(10, np.nan), np.linspace(2, 3, 1001)])
    low, high = grey_range(values) or (0, 0)
    assert 2 < low < 2.01
    assert 2.99 < high < 3


def test_a_constant_image_has_no_range():
    assert grey_range(np.full((4, 4), 7, np.uint16)) is None
    assert grey_range(np.full((4, 4), 7, np.float32)) is None
