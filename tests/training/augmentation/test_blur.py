"""Blur: what a Gaussian does, within the section, to those it meets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from tests.training.augmentation.samples import STACK, chances, make_sample
from volseg.training.augmentation.blur import Blur, Defocus, blurred


@pytest.mark.parametrize("side", [40, 5])
def test_blur_is_the_gaussian_of_each_section_mirrored_at_the_edge(side: int) -> None:
    raw = make_sample((2, 3, side, side)).raw
    after = blurred(raw, [0.7, 2.0], 2.0)
    for patch, sigma in enumerate((0.7, 2.0)):
        expected = gaussian_filter(raw[patch].numpy(), (0, sigma, sigma), mode="mirror", radius=(0, 6, 6))
        np.testing.assert_allclose(after[patch], expected, atol=1e-5)


def test_sigma_0_changes_nothing() -> None:
    raw = make_sample().raw
    assert torch.equal(blurred(raw, [0.0] * 3, 1.5), raw)


def test_defocus_is_stronger_than_any_usual_blur() -> None:
    sample = make_sample(STACK)
    usual = Blur(1, 1.0)(sample, chances(3)).raw.std((2, 3))
    assert Defocus(1)(sample, chances(3)).raw.std((2, 3)).max() < usual.min()


def test_blur_meets_patches_and_defocus_sections() -> None:
    sample = make_sample(STACK)
    same = (Blur(0.5, 2.0)(sample, chances(3)).raw == sample.raw).flatten(2).all(2)
    assert sorted({*same.all(1).tolist(), *same.any(1).tolist()}) == [False, True]
    assert torch.equal(same.all(1), same.any(1))
    same = (Defocus(0.5)(sample, chances(3)).raw == sample.raw).flatten(2).all(2)
    assert 0 < int(same.sum()) < 18


def test_share_0_never_blurs() -> None:
    sample = make_sample(STACK)
    assert Blur(0, 2.0)(sample, chances(3)) is sample
    assert Defocus(0)(sample, chances(3)) is sample
