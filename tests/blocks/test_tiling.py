"""Tiles cover a write box, have one input shape, and sit on the network's stride."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.blocks import Box, Footprint, Tiling
from volseg.errors import GridError

PADDED = Footprint((0, 21, 21), (0, 21, 21), (1, 4, 4), (0, 0, 0), (1, 4, 4), (0, 19, 19))
UNPADDED = Footprint((0, 23, 23), (0, 23, 23), (1, 4, 4), (0, 20, 20), (1, 44, 44), (0, 20, 20))


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    footprint = draw(st.sampled_from([PADDED, UNPADDED]))
    core = (draw(st.integers(1, 3)), 4 * draw(st.integers(1, 5)), 4 * draw(st.integers(1, 5)))
    more = draw(st.integers(0, 3))
    _, y, x = (m + s * more for m, s in zip(footprint.margin, footprint.stride, strict=True))
    return Tiling(footprint, core, (0, y, x))


@st.composite
def write_boxes(draw: st.DrawFn) -> Box:
    start = draw(st.tuples(*[st.integers(0, 30)] * 3))
    size = draw(st.tuples(*[st.integers(1, 30)] * 3))
    return Box(start, tuple(a + n for a, n in zip(start, size, strict=True)))


@given(tilings(), write_boxes())
def test_cores_cover_every_voxel_once_and_inputs_lie_in_the_read_box(tiling: Tiling, write_box: Box) -> None:
    covered = np.zeros(write_box.shape, int)
    cores = list(tiling.cores(write_box))
    assert len(cores) == tiling.count(write_box)
    for core in cores:
        inside = core.intersection(write_box)
        covered[inside.relative_to(write_box.start).slices] += 1
        assert tiling.read_box(write_box).contains(tiling.input_box(core))
        assert all(a % s == 0 for a, s in zip(core.start, tiling.footprint.stride, strict=True))
        assert tiling.input_box(core).shape == tiling.input_shape
    assert (covered == 1).all()


@given(tilings())
def test_the_network_takes_the_input_and_its_output_holds_the_core(tiling: Tiling) -> None:
    footprint = tiling.footprint
    for n, smallest, stride in zip(tiling.input_shape, footprint.smallest, footprint.stride, strict=True):
        assert n >= smallest
        assert (n - smallest) % stride == 0
    outputs = (n - 2 * m for n, m in zip(tiling.input_shape, footprint.margin, strict=True))
    assert all(stop <= out for stop, out in zip(tiling.crop.stop, outputs, strict=True))


def test_the_exact_halo_is_the_context_on_the_stride_or_the_margin() -> None:
    assert PADDED.exact_halo() == (0, 20, 20)
    assert UNPADDED.exact_halo() == (0, 20, 20)
    assert not PADDED.reaches_beyond((0, 20, 20))
    assert PADDED.reaches_beyond((0, 16, 20))


def test_a_halo_off_the_stride_is_refused_with_the_next_multiple() -> None:
    with pytest.raises(GridError, match=r"network's stride \(1, 4, 4\).*--halo 0,20,16"):
        PADDED.validate_halo((0, 17, 16))


def test_a_halo_below_an_unpadded_networks_margin_is_refused() -> None:
    with pytest.raises(GridError, match=r"below the margin \(0, 20, 20\)"):
        UNPADDED.validate_halo((0, 16, 20))


def test_a_halo_along_an_axis_that_the_network_does_not_see_is_refused() -> None:
    with pytest.raises(GridError, match=r"does not look along; use --halo 0,20,20"):
        PADDED.validate_halo((2, 20, 20))


def test_a_core_off_the_stride_is_refused() -> None:
    with pytest.raises(GridError, match=r"core \(1, 6, 8\) .* stride \(1, 4, 4\)"):
        Tiling(PADDED, (1, 6, 8), (0, 20, 20))
