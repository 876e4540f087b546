"""The arithmetic of halos: what samples show at each depth, and the cheapest halo that is good enough."""

from __future__ import annotations

import numpy as np
import pytest

from volseg.blocks import BlockGrid, Box, Footprint
from volseg.config.tolerance import Tolerance
from volseg.prediction.autotune import halo_curve as arithmetic
from volseg.prediction.autotune.halo_curve import DepthErrors, HaloError, candidate_halos, sample_boxes

FLAT = Footprint((0, 21, 21), (0, 21, 21), (1, 8, 8), (0, 0, 0), (1, 8, 8), (0, 20, 20))
DEEP = Footprint((5, 21, 21), (5, 21, 21), (2, 8, 8), (0, 0, 0), (2, 8, 8), (4, 20, 20), dimensions=3)


def test_candidates_are_on_the_stride_and_end_with_the_exact_halo() -> None:
    assert candidate_halos(FLAT) == ((0, 0, 0), (0, 8, 8), (0, 16, 16), (0, 24, 24))
    assert len(candidate_halos(DEEP)) == 3 * 4
    assert candidate_halos(DEEP)[-1] == DEEP.exact_halo() == (4, 24, 24)


@pytest.mark.parametrize("footprint", [FLAT, DEEP])
def test_errors_are_counted_at_the_depth_where_they_are(footprint: Footprint) -> None:
    shape = (1 if footprint is FLAT else 12, 64, 64)
    exact = np.zeros((1, *shape), np.uint8)
    cut = exact.copy()
    cut[0, :, 10, 30] = 5  # ten voxels from the nearest face along y
    points = {
        p.halo: p
        for p in arithmetic.halo_errors(
            [arithmetic.errors_by_depth(cut, exact, Box.of_shape(shape), footprint)], footprint, (shape[0], 32, 32)
        )
    }
    for halo, point in points.items():
        seen = halo[1] <= 10 and halo != footprint.exact_halo()
        assert point.max_error == (5 if seen else 0)
        assert (point.fraction < 1) == seen


def sample_of(wrong: list[float]) -> DepthErrors:
    """A flat sample with a share of wrong voxels at each depth."""
    voxels = np.full((1, len(wrong)), 1000)
    within = voxels - (1000 * np.array([wrong])).astype(np.int64)
    return DepthErrors(voxels, within, np.where(within < voxels, 9, 0))


def test_the_share_is_that_of_the_runs_tile_not_of_the_samples() -> None:
    """Half of the outermost eight voxels are wrong: much of a small tile, little of a large one."""
    sample = sample_of([0.5, 0.0, 0.0, 0.0])
    for side, ring in ((16, 1.0), (32, 768 / 1024), (1024, 1 - (1008 / 1024) ** 2)):
        assert arithmetic.halo_errors([sample], FLAT, (1, side, side))[0].fraction == pytest.approx(1 - 0.5 * ring)
        assert arithmetic.halo_errors([sample], FLAT, (1, side, side))[1].fraction == 1


def test_the_cheapest_halo_within_tolerance_is_chosen_along_all_axes() -> None:
    enough = {(0, 24, 24), (2, 16, 16), (2, 24, 24), (4, 16, 16), (4, 24, 24)}
    points = [HaloError(halo, 1.0 if halo in enough else 0.5, 0) for halo in candidate_halos(DEEP)]
    assert arithmetic.cheapest_halo(points, Tolerance(), DEEP, (4, 256, 256)).halo == (0, 24, 24)
    assert arithmetic.cheapest_halo(points, Tolerance(), DEEP, (64, 32, 32)).halo == (2, 16, 16)


def test_the_exact_halo_is_taken_where_no_smaller_one_will_do() -> None:
    points = arithmetic.halo_errors([sample_of([0.5] * 8)], FLAT, (1, 64, 64))
    assert arithmetic.cheapest_halo(points, Tolerance(), FLAT, (1, 256, 256)) == HaloError(FLAT.exact_halo(), 1.0, 0.0)


def test_samples_sit_on_the_stride_inside_the_region_and_differ() -> None:
    grid = BlockGrid.over((40, 2000, 3000), (16, 512, 512), (16, 512, 512), Box((8, 500, 0), (40, 2000, 3000)))
    boxes = sample_boxes(grid, FLAT)
    assert len(set(boxes)) == len(boxes) == 6
    for box in boxes:
        assert grid.region.contains(box)
        assert all(a % s == 0 for a, s in zip(box.start, FLAT.stride, strict=True))
        assert box.shape == (1, 208, 208)
    assert len({box.start[0] for box in boxes}) == 6
    assert boxes[0] == Box((20, 896, 1392), (21, 1104, 1600))  # the middle


def test_the_hardest_sample_decides() -> None:
    easy, hard = sample_of([0.1, 0.0, 0.0, 0.0]), sample_of([0.2, 0.1, 0.0, 0.0])
    assert arithmetic.halo_errors([easy, hard], FLAT, (1, 64, 64)) == arithmetic.halo_errors([hard], FLAT, (1, 64, 64))


@pytest.mark.parametrize("footprint", [FLAT, DEEP])
def test_the_corner_that_is_compared_is_beyond_reach_of_the_other_faces(footprint: Footprint) -> None:
    (sample, *_) = sample_boxes(BlockGrid.over((40, 2000, 3000), (16, 512, 512), (16, 512, 512)), footprint)
    part, cut = arithmetic.corner(sample, footprint), footprint.exact_halo()
    assert sample.contains(part)
    assert part.start[:2] == sample.start[:2]
    assert part.stop[2] == sample.stop[2]
    assert sample.stop[1] - part.stop[1] == part.start[2] - sample.start[2] == cut[1]
    assert sample.stop[0] - part.stop[0] == cut[0]
    # As deep as any halo that might be cheapest_halo, and more.
    assert all(n > c for n, c in zip(part.shape, cut, strict=True))
