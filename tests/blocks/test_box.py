"""Boxes: cropping undoes growing, and both boxes contain their intersection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.blocks import Box
from volseg.errors import GridError

places = st.tuples(*[st.integers(-20, 20)] * 3)
sizes = st.tuples(*[st.integers(0, 20)] * 3)
boxes = st.builds(lambda a, n: Box(a, tuple(x + y for x, y in zip(a, n, strict=True))), places, sizes)


@given(boxes, sizes)
def test_cropping_undoes_growing(box: Box, halo: tuple[int, int, int]) -> None:
    shrunk = tuple(-h for h in halo)
    assert box.grow(halo).grow(shrunk) == box


@given(boxes, boxes)
def test_both_boxes_contain_their_intersection(a: Box, b: Box) -> None:
    common = a.intersection(b)
    assert common.voxels == 0 or (a.contains(common) and b.contains(common))
    assert common.voxels == b.intersection(a).voxels


@given(boxes, places)
def test_another_origin_keeps_the_shape(box: Box, origin: tuple[int, int, int]) -> None:
    assert box.relative_to(origin).shape == box.shape


def test_a_box_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(GridError, match="must not end before it starts"):
        Box((0, 0, 5), (1, 1, 4))
