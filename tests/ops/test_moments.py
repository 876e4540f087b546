"""Moments of tissue: exact, whatever the windows; fill and NaN around the tissue do not count."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.ops.moments import Moments, NanTiles, SectionSum, pooled

TYPES = ("uint8", "uint16", "int16", "float32")


def island(rng: np.random.Generator, dtype: str, shape: tuple[int, int] = (150, 200), fill: float = 0) -> np.ndarray:
    """A section of fill with tissue in a box of at least 8 x 8 voxels."""
    section = np.full(shape, fill, dtype)
    y, x = (int(rng.integers(0, n - 8)) for n in shape)
    height, width = (int(rng.integers(8, n - a + 1)) for n, a in zip(shape, (y, x), strict=True))
    scale, offset = (200, 20) if dtype == "uint8" else (3000, 30_000 if dtype != "int16" else -12_000)
    section[y : y + height, x : x + width] = (rng.random((height, width)) * scale + offset).astype(dtype)
    return section


def moments_of(section: np.ndarray, rows: list[int] | None = None) -> Moments:
    """The moments, added in windows that end at some rows."""
    total = SectionSum(section.dtype)
    edges = [0, *(rows or []), len(section)]
    for first, stop in itertools.pairwise(edges):
        total.add(section[first:stop], (first, 0))
    return total.moments()


@given(st.integers(0, 2**32 - 1), st.sampled_from(TYPES), st.lists(st.integers(1, 149), unique=True, max_size=3))
def test_moments_are_those_of_all_tissue_voxels_for_any_windows(seed: int, dtype: str, rows: list[int]) -> None:
    section = island(np.random.default_rng(seed), dtype)
    tissue = section[section != 0].astype(np.longdouble)
    mean, std, count = moments_of(section, sorted(rows))
    assert count == tissue.size
    assert mean == pytest.approx(float(tissue.mean()), rel=1e-12)
    assert std == pytest.approx(float(tissue.std()), rel=1e-9)
    if dtype != "float32":
        assert (mean, std, count) == moments_of(section), "sums of integers are exact"


@pytest.mark.parametrize("width", [255, 256, 512])
def test_sums_of_bytes_are_exact_whatever_the_width(width: int, rng: np.random.Generator) -> None:
    section = rng.integers(200, 256, (512, width)).astype(np.uint8)
    mean, std, _ = moments_of(section)
    assert mean == int(section.sum(dtype=np.int64)) / section.size
    squares = int((section.astype(np.int64) ** 2).sum())
    assert std**2 == pytest.approx(squares / section.size - mean**2, rel=1e-9)


def test_large_values_of_small_contrast_keep_their_digits() -> None:
    section = (1e6 + np.arange(64).reshape(8, 8) % 2).astype(np.float32)
    assert moments_of(section) == pytest.approx(Moments(1e6 + 0.5, 0.5, 64))


@pytest.mark.parametrize(("dtype", "fill"), [("uint8", 255), ("uint16", 65535), ("int16", -1), ("float32", -7.5)])
def test_a_value_that_fills_a_tile_is_no_tissue(dtype: str, fill: float) -> None:
    rng = np.random.default_rng(1)
    section = np.full((192, 192), fill, dtype)
    section[70:180, 3:120] = rng.integers(1, 100, (110, 117))
    total = SectionSum(section.dtype)
    total.add(section)
    assert total.fills == {fill}
    expected = section[section != fill].astype(float)
    assert total.moments() == pytest.approx((expected.mean(), expected.std(), expected.size))


def test_a_section_of_one_value_has_no_tissue() -> None:
    for value in (0, 9):
        moments = moments_of(np.full((70, 70), value, np.uint8))
        assert moments.voxels == 0
        assert moments.constants == (0.0, float("inf"))


def test_moments_of_sections_pool_to_those_of_the_volume(rng: np.random.Generator) -> None:
    volume = np.stack([island(rng, "uint8") for _ in range(5)])
    tissue = volume[volume != 0].astype(float)
    whole = pooled([moments_of(section) for section in volume])
    assert whole == pytest.approx((tissue.mean(), tissue.std(), tissue.size))
    assert pooled([Moments(0.0, 0.0, 0)]).constants == (0.0, float("inf"))


NAN = np.nan
CASES: list[tuple[str, Any, Any]] = [
    ("one voxel", (slice(100, 101), slice(150, 151)), (100, 150)),
    ("a hole smaller than a tile", (slice(70, 100), slice(70, 100)), (70, 70)),
    ("one voxel in a tile at the border", (slice(5, 6), slice(5, 6)), (5, 5)),
    ("a corner", (slice(0, 30), slice(0, 30)), None),
    ("rows at the border", (slice(190, 200), slice(0, 300)), None),
    ("a region that holds a tile", (slice(60, 140), slice(60, 140)), None),
    ("all", (slice(0, 200), slice(0, 300)), None),
]


@pytest.mark.parametrize(("name", "where", "damage"), CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("rows", [200, 70])
def test_nan_around_tissue_is_no_data_and_in_its_midst_is_damage(name: str, where: Any, damage: Any, rows: int) -> None:
    section = np.ones((200, 300), np.float32)
    section[where] = NAN
    tiles = NanTiles((0, 0), (200, 300))
    for first in range(0, 200, rows):
        tiles.add(section[first : first + rows], (first, 0))
    assert tiles.has_non_finite
    assert tiles.damage() == damage


def test_nan_beside_fill_is_around_the_tissue() -> None:
    section = np.ones((256, 256), np.float32)
    section[64:192, 64:192] = 0
    section[60:70, 60:70] = NAN
    tiles = NanTiles((0, 0), (256, 256))
    tiles.add(section)
    assert tiles.damage() is None
