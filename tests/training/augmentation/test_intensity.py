"""Grey values: within the bounds asked for, rising where they rose, and of the raw patch alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.augmentation.samples import STACK, chances, make_sample
from volseg.training.augmentation.intensity import Brighten, Contrast, Gamma, Miss, Noise, Shade, curved

MANY = (60, 1, 8, 8)


def test_brightness_shifts_within_its_bound_both_ways() -> None:
    sample = make_sample(MANY)
    shifts = (Brighten(0.4)(sample, chances(60)).raw - sample.raw).flatten(1)
    assert bool((shifts.amax(1) - shifts.amin(1) < 1e-5).all())
    assert -0.4 <= shifts.min() < -0.3
    assert 0.3 < shifts.max() <= 0.4


def test_contrast_scales_within_its_bounds_down_as_often_as_up() -> None:
    sample = make_sample(MANY)
    factors = (Contrast(0.5)(sample, chances(60)).raw / sample.raw).flatten(1)[:, 0]
    assert 0.5 <= factors.min() < 0.6
    assert 1.7 < factors.max() <= 2
    assert 20 < int((factors < 1).sum()) < 40


@given(st.floats(0.2, 5), st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=20))
def test_gamma_never_turns_grey_values_round(exponent: float, greys: list[float]) -> None:
    rising = torch.tensor(sorted(greys))
    after = curved(rising, torch.tensor(exponent))
    assert bool((after.diff() >= -1e-5).all())
    assert bool((after.abs() <= torch.maximum(rising.abs(), torch.tensor(3.0)) + 1e-5).all())


def test_gamma_of_exponent_1_and_the_ends_of_its_range_stay() -> None:
    greys = torch.linspace(-5, 5, 41)
    torch.testing.assert_close(curved(greys, torch.tensor(1.0)), greys, rtol=0, atol=1e-6)
    ends = torch.tensor([-3.0, 3.0, -4.0, 5.0])
    torch.testing.assert_close(curved(ends, torch.tensor(1.7)), ends, rtol=0, atol=1e-6)


def test_gamma_darkens_and_brightens_the_middle() -> None:
    middle = make_sample(MANY)
    middle.raw.zero_()
    after = Gamma(0.5)(middle, chances(60)).raw[:, 0, 0, 0]
    assert -1.5 <= after.min() < -0.5  # exponent 2
    assert 0.5 < after.max() <= 6 * 0.5**0.5 - 3  # exponent 1 / 2


def test_noise_is_as_strong_as_drawn_and_never_stronger_than_asked() -> None:
    sample = make_sample((30, 1, 32, 32))
    added = Noise(0.5)(sample, chances(30)).raw - sample.raw
    stds = added.std((1, 2, 3))
    assert stds.min() < 0.1
    assert 0.35 < stds.max() < 0.53
    assert bool((added.mean((1, 2, 3)).abs() < 0.1).all())


def test_noise_differs_from_patch_to_patch() -> None:
    sample = make_sample((2, 1, 16, 16))
    added = Noise(0.5)(sample, chances(2)).raw - sample.raw
    assert abs(torch.corrcoef(added.flatten(1))[0, 1]) < 0.3


def test_shaded_sections_are_far_off_both_ways_and_the_others_stay() -> None:
    sample = make_sample((20, 6, 16, 16))
    after = Shade(0.5)(sample, chances(20)).raw
    touched = (after != sample.raw).flatten(2).any(2)
    assert 40 < int(touched.sum()) < 80
    means = after.mean((2, 3))[touched]
    assert bool((means.abs() > 0.7).all())
    assert {bool(mean > 0) for mean in means} == {False, True}


def test_missing_sections_are_of_one_grey_and_keep_their_labels() -> None:
    sample = make_sample(STACK)
    after = Miss(0.5)(sample, chances(3))
    stds = after.raw.std((2, 3))
    assert 0 < int((stds == 0).sum()) < 18
    assert torch.equal(after.raw[stds > 0], sample.raw[stds > 0])
    assert torch.equal(after.labels, sample.labels)


def test_a_lone_section_is_never_missing() -> None:
    sample = make_sample()
    assert Miss(1)(sample, chances(3)) is sample


@pytest.mark.parametrize("never", [Shade(0), Miss(0)])
def test_share_0_never_happens(never: Shade | Miss) -> None:
    sample = make_sample(STACK)
    assert never(sample, chances(3)) is sample
