"""Seamed maps are called seamed and good ones are not, by the map alone; `seam_calls` prints the whole table."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.faults.seam_calls import calls_of


def test_a_map_with_a_small_halo_is_called_and_the_exact_one_is_not() -> None:
    good, seamed = calls_of(2, ("good", "halo"), 144, 64)
    assert not good.seamed
    assert seamed.off >= 0.01
    assert seamed.seamed


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_good_maps_are_not_called_and_seamed_ones_are() -> None:
    """One in ten of the seamed maps may be missed, in crops of half a million voxels; no good one may be called."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        calls = [one for some in pool.map(calls_of, range(40)) for one in some]
    good = [one for one in calls if one.kind == "good"]
    assert len(good) == 40
    assert not any(one.seamed or one.searched for one in good)
    for kind in ("halo", "normalised"):
        seamed = [one for one in calls if one.kind == kind and one.off >= 0.01][:20]
        assert len(seamed) == 20
        assert sum(one.seamed for one in seamed) >= 18
