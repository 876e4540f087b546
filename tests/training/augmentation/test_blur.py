"""Blur: equal to a Gaussian filter within each section."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from tests.training.augmentation.samples import STACK, batch_rngs, make_sample
from volseg.training.augmentation.blur import Defocus, GaussianBlur, gaussian_blur


@pytest.mark.parametrize("side", [40, 5])
def test_blur_equals_a_mirrored_gaussian_filter_of_each_section(side: int) -> None:
    raw = make_sample((2, 3, side, side)).raw
    after = gaussian_blur(raw, [0.7, 2.0], 2.0)
    for patch, sigma in enumerate((0.7, 2.0)):
        expected = gaussian_filter(raw[patch].numpy(), (0, sigma, sigma), mode="mirror", radius=(0, 6, 6))
        np.testing.assert_allclose(after[patch], expected, atol=1e-5)


def test_sigma_0_changes_nothing() -> None:
    raw = make_sample().raw
    assert torch.equal(gaussian_blur(raw, [0.0] * 3, 1.5), raw)


def test_defocus_is_stronger_than_blur() -> None:
    sample = make_sample(STACK)
    blur = GaussianBlur(1, 1.0)(sample, batch_rngs(3)).raw.std((2, 3))
    assert Defocus(1)(sample, batch_rngs(3)).raw.std((2, 3)).max() < blur.min()


def test_blur_applies_to_patches_and_defocus_to_sections() -> None:
    sample = make_sample(STACK)
    unchanged = (GaussianBlur(0.5, 2.0)(sample, batch_rngs(3)).raw == sample.raw).flatten(2).all(2)
    assert sorted({*unchanged.all(1).tolist(), *unchanged.any(1).tolist()}) == [False, True]
    assert torch.equal(unchanged.all(1), unchanged.any(1))
    unchanged = (Defocus(0.5)(sample, batch_rngs(3)).raw == sample.raw).flatten(2).all(2)
    assert 0 < int(unchanged.sum()) < 18


def test_probability_0_changes_nothing() -> None:
    sample = make_sample(STACK)
    assert GaussianBlur(0, 2.0)(sample, batch_rngs(3)) is sample
    assert Defocus(0)(sample, batch_rngs(3)) is sample
