"""Misalignment: the stack is shifted from a section on, with its labels."""

from __future__ import annotations

import numpy as np
import torch

from tests.training.augmentation.samples import STACK, batch_rngs, labels_as_raw, make_sample, same
from volseg.training.augmentation.misalignment import Misalignment


def test_shifts_add_up_from_the_second_section_on_and_stay_within_bounds() -> None:
    always = Misalignment(1, 7)
    for rng in batch_rngs(30):
        shifts = always.sample_shifts(rng, 5)
        assert not shifts[0].any()
        assert np.abs(np.diff(shifts, axis=0)).max() <= 7
        assert np.abs(np.diff(shifts, axis=0)).sum(1).any()


def test_a_stack_stays_shifted_until_the_next_jump() -> None:
    jumps = [np.diff(Misalignment(0.3, 9).sample_shifts(rng, 8), axis=0).any(1).mean() for rng in batch_rngs(200)]
    assert 0.2 < np.mean(jumps) < 0.35


def test_labels_and_weights_are_shifted_with_the_raw() -> None:
    sample = labels_as_raw(STACK)
    after = Misalignment(1, 10)(sample, batch_rngs(3))
    assert torch.equal(after.raw, after.labels.float())
    assert after.weights is not None
    assert torch.equal(after.weights, after.labels.float())
    assert torch.equal(after.raw[:, 0], sample.raw[:, 0])
    assert not torch.equal(after.raw[:, 1], sample.raw[:, 1])


def test_a_section_is_shifted_as_a_whole_and_mirrored() -> None:
    sample = make_sample(STACK)
    shifts = np.stack([Misalignment(1, 4).sample_shifts(rng, 6) for rng in batch_rngs(3)])
    after = Misalignment(1, 4)(sample, batch_rngs(3))
    wide = np.pad(sample.raw.numpy(), ((0, 0), (0, 0), (20, 20), (20, 20)), mode="reflect")
    for patch, section in ((0, 1), (1, 3), (2, 5)):
        dy, dx = shifts[patch, section] + 20
        np.testing.assert_array_equal(after.raw[patch, section], wide[patch, section, dy : dy + 40, dx : dx + 40])


def test_a_single_section_or_probability_0_changes_nothing() -> None:
    sample = make_sample()
    assert same(Misalignment(1, 10)(sample, batch_rngs(3)), sample)
    stack = make_sample(STACK)
    assert same(Misalignment(0, 10)(stack, batch_rngs(3)), stack)
