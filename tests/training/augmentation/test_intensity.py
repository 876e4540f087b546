"""Grey values: changes are bounded and monotonic, and only raw changes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.augmentation.samples import STACK, batch_rngs, make_sample
from volseg.training.augmentation.intensity import (
    GaussianNoise,
    MissingSection,
    RandomBrightness,
    RandomContrast,
    RandomGamma,
    SectionShading,
    adjust_gamma,
)

MANY = (60, 1, 8, 8)


def test_brightness_shifts_in_both_directions_within_its_limit() -> None:
    sample = make_sample(MANY)
    shifts = (RandomBrightness(0.4)(sample, batch_rngs(60)).raw - sample.raw).flatten(1)
    assert bool((shifts.amax(1) - shifts.amin(1) < 1e-5).all())
    assert -0.4 <= shifts.min() < -0.3
    assert 0.3 < shifts.max() <= 0.4


def test_contrast_scales_down_as_often_as_up_within_its_limits() -> None:
    sample = make_sample(MANY)
    factors = (RandomContrast(0.5)(sample, batch_rngs(60)).raw / sample.raw).flatten(1)[:, 0]
    assert 0.5 <= factors.min() < 0.6
    assert 1.7 < factors.max() <= 2
    assert 20 < int((factors < 1).sum()) < 40


@given(st.floats(0.2, 5), st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=20))
def test_gamma_is_monotonic_and_keeps_the_range(exponent: float, greys: list[float]) -> None:
    rising = torch.tensor(sorted(greys))
    after = adjust_gamma(rising, torch.tensor(exponent))
    assert bool((after.diff() >= -1e-5).all())
    assert bool((after.abs() <= torch.maximum(rising.abs(), torch.tensor(3.0)) + 1e-5).all())


def test_gamma_keeps_all_values_for_exponent_1_and_the_ends_of_its_range() -> None:
    greys = torch.linspace(-5, 5, 41)
    torch.testing.assert_close(adjust_gamma(greys, torch.tensor(1.0)), greys, rtol=0, atol=1e-6)
    ends = torch.tensor([-3.0, 3.0, -4.0, 5.0])
    torch.testing.assert_close(adjust_gamma(ends, torch.tensor(1.7)), ends, rtol=0, atol=1e-6)


def test_gamma_darkens_and_brightens_mid_grey() -> None:
    zeros = make_sample(MANY)
    zeros.raw.zero_()
    after = RandomGamma(0.5)(zeros, batch_rngs(60)).raw[:, 0, 0, 0]
    assert -1.5 <= after.min() < -0.5  # exponent 2
    assert 0.5 < after.max() <= 6 * 0.5**0.5 - 3  # exponent 1 / 2


def test_noise_has_a_random_standard_deviation_up_to_its_limit() -> None:
    sample = make_sample((30, 1, 32, 32))
    added = GaussianNoise(0.5)(sample, batch_rngs(30)).raw - sample.raw
    stds = added.std((1, 2, 3))
    assert stds.min() < 0.1
    assert 0.35 < stds.max() < 0.53
    assert bool((added.mean((1, 2, 3)).abs() < 0.1).all())


def test_noise_differs_between_patches() -> None:
    sample = make_sample((2, 1, 16, 16))
    added = GaussianNoise(0.5)(sample, batch_rngs(2)).raw - sample.raw
    assert abs(torch.corrcoef(added.flatten(1))[0, 1]) < 0.3


def test_shading_changes_its_sections_in_both_directions_and_no_others() -> None:
    sample = make_sample((20, 6, 16, 16))
    after = SectionShading(0.5)(sample, batch_rngs(20)).raw
    changed = (after != sample.raw).flatten(2).any(2)
    assert 40 < int(changed.sum()) < 80
    means = after.mean((2, 3))[changed]
    assert bool((means.abs() > 0.7).all())
    assert {bool(mean > 0) for mean in means} == {False, True}


def test_missing_sections_are_uniform_and_keep_their_labels() -> None:
    sample = make_sample(STACK)
    after = MissingSection(0.5)(sample, batch_rngs(3))
    stds = after.raw.std((2, 3))
    assert 0 < int((stds == 0).sum()) < 18
    assert torch.equal(after.raw[stds > 0], sample.raw[stds > 0])
    assert torch.equal(after.labels, sample.labels)


def test_a_single_section_is_never_missing() -> None:
    sample = make_sample()
    assert MissingSection(1)(sample, batch_rngs(3)) is sample


@pytest.mark.parametrize("augmentation", [SectionShading(0), MissingSection(0)])
def test_probability_0_changes_nothing(augmentation: SectionShading | MissingSection) -> None:
    sample = make_sample(STACK)
    assert augmentation(sample, batch_rngs(3)) is sample
