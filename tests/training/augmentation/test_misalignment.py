"""Misalignment: from one section on the stack is elsewhere, labels with it."""

from __future__ import annotations

import numpy as np
import torch

from tests.training.augmentation.samples import STACK, agreeing, chances, make_sample, same
from volseg.training.augmentation.misalignment import Misalign


def test_shifts_add_up_from_the_second_section_on_and_stay_within_bounds() -> None:
    always = Misalign(1, 7)
    for chance in chances(30):
        shifts = always.shifts(chance, 5)
        assert not shifts[0].any()
        assert np.abs(np.diff(shifts, axis=0)).max() <= 7
        assert np.abs(np.diff(shifts, axis=0)).sum(1).any()


def test_a_stack_stays_shifted_until_the_next_jump() -> None:
    jumps = [np.diff(Misalign(0.3, 9).shifts(chance, 8), axis=0).any(1).mean() for chance in chances(200)]
    assert 0.2 < np.mean(jumps) < 0.35


def test_labels_and_weights_are_shifted_with_the_raw() -> None:
    sample = agreeing(STACK)
    after = Misalign(1, 10)(sample, chances(3))
    assert torch.equal(after.raw, after.labels.float())
    assert after.weights is not None
    assert torch.equal(after.weights, after.labels.float())
    assert torch.equal(after.raw[:, 0], sample.raw[:, 0])
    assert not torch.equal(after.raw[:, 1], sample.raw[:, 1])


def test_a_section_is_shifted_whole() -> None:
    sample = make_sample(STACK)
    shifts = np.stack([Misalign(1, 4).shifts(chance, 6) for chance in chances(3)])
    after = Misalign(1, 4)(sample, chances(3))
    wide = np.pad(sample.raw.numpy(), ((0, 0), (0, 0), (20, 20), (20, 20)), mode="reflect")
    for patch, section in ((0, 1), (1, 3), (2, 5)):
        dy, dx = shifts[patch, section] + 20
        np.testing.assert_array_equal(after.raw[patch, section], wide[patch, section, dy : dy + 40, dx : dx + 40])


def test_a_lone_section_cannot_be_misaligned_and_share_0_never_happens() -> None:
    sample = make_sample()
    assert same(Misalign(1, 10)(sample, chances(3)), sample)
    stack = make_sample(STACK)
    assert same(Misalign(0, 10)(stack, chances(3)), stack)
