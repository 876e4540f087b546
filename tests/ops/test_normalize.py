"""Constants are those of a volume or its sections, never of a part that is normalised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.errors import ConfigError
from volseg.ops import Normalization, moments, normalize, to_probability, to_uint8


def test_a_part_is_normalised_as_in_the_whole_volume(rng: np.random.Generator) -> None:
    raw = rng.integers(1, 255, (9, 8, 8)).astype(np.uint8)
    for mode in ("fixed", "volume", "section"):
        statistics = Normalization(mode, (120.0, 30.0)).statistics_of(raw)
        whole = normalize(raw, statistics)
        np.testing.assert_array_equal(normalize(raw[3:5], statistics, first_section=3), whole[3:5])


def test_sections_outside_the_volume_take_the_constants_of_their_mirror_image(rng: np.random.Generator) -> None:
    raw = rng.integers(1, 255, (4, 3, 3)).astype(np.uint8)
    padded = np.pad(raw, [(2, 3), (0, 0), (0, 0)], mode="reflect")
    statistics = Normalization("section", (0.0, 1.0)).statistics_of(raw)
    expected = np.pad(normalize(raw, statistics), [(2, 3), (0, 0), (0, 0)], mode="reflect")
    np.testing.assert_array_equal(normalize(padded, statistics, first_section=-2), expected)


def test_in_section_mode_each_section_gets_mean_0_and_standard_deviation_1(rng: np.random.Generator) -> None:
    raw = rng.integers(1, 255, (3, 64, 64)).astype(np.uint16) * np.array([[[1]], [[2]], [[3]]], np.uint16)
    normalized = normalize(raw, Normalization("section", (0.0, 1.0)).statistics_of(raw))
    np.testing.assert_allclose(normalized.mean(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(normalized.std(axis=(1, 2)), 1, atol=1e-5)


def test_moments_ignore_fill_and_non_finite_voxels() -> None:
    assert moments(np.float32([0, 0, np.nan, np.inf, 10, 30])) == (20.0, 10.0)
    assert moments(np.zeros((4, 4), np.uint8)) == (0.0, 1.0)
    assert moments(np.full((4, 4), 7, np.uint8)) == (7.0, 1.0)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="no normalisation 'block'; choose from fixed, section, volume"):
        Normalization("block", (0.0, 1.0))


@given(st.floats(0, 1, width=32))
def test_a_stored_probability_is_off_by_at_most_half_a_step(value: float) -> None:
    stored = to_uint8(np.asarray([value], np.float32))
    assert abs(float(to_probability(stored)[0]) - value) <= 0.5 / 255 + 1e-6


def test_bytes_survive_conversion_to_probability_and_back() -> None:
    stored = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(to_probability(stored)), stored)


@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_to_uint8_is_monotonic(a: float, b: float) -> None:
    low, high = to_uint8(np.asarray(sorted((a, b)), np.float32))
    assert low <= high
