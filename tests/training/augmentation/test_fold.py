"""Folds: a dark band that no label describes, and tissue pulled towards it on both sides."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.training.augmentation.samples import STACK, agreeing, chances, make_sample
from volseg.training.augmentation.fold import Fold, Line, folded
from volseg.training.data.sample import IGNORED

DOWN = Line(at=(30.0, 32.0), normal=(0.0, 1.0), width=6.0, pulled=5.0, dark=3.0)


def test_the_band_is_dark_and_its_labels_are_ignored() -> None:
    sample = make_sample((1, 1, 64, 64))
    after = folded(sample, [0], [DOWN])
    assert after.raw[..., 30:35].mean() < -2.5
    assert after.raw[..., 30:35].std() < 0.5
    assert bool((after.labels[..., 29:36] == IGNORED).all())


def test_tissue_on_both_sides_is_pulled_to_the_line_and_labels_and_weights_too() -> None:
    sample = make_sample((1, 1, 64, 64))
    after = folded(sample, [0], [DOWN])
    assert sample.weights is not None
    assert after.weights is not None
    for before, now in ((sample.raw, after.raw), (sample.labels, after.labels), (sample.weights, after.weights)):
        assert torch.equal(now[..., 5:28], before[..., :23])
        assert torch.equal(now[..., 37:59], before[..., 42:])


@pytest.mark.parametrize("seed", range(3))
def test_raw_away_from_the_band_still_agrees_with_its_labels(seed: int) -> None:
    after = Fold(1)(agreeing(STACK), chances(3, seed))
    known = after.labels != IGNORED
    assert torch.equal(after.raw[known], after.labels[known].float())


def test_every_line_crosses_its_section() -> None:
    sample = replace(make_sample((40, 1, 48, 48)), labels=torch.ones(40, 1, 48, 48, dtype=torch.int32))
    after = Fold(1)(sample, chances(40))
    ignored = (after.labels == IGNORED).float().mean((1, 2, 3))
    assert bool((ignored > 0).all())
    assert bool((ignored < 0.6).all())
    assert len(set(ignored.tolist())) > 30


def test_share_0_folds_nothing_and_sections_not_met_stay() -> None:
    sample = make_sample(STACK)
    assert Fold(0)(sample, chances(3)) is sample
    after = folded(sample, [7], [DOWN])
    kept = [torch.equal(a, b) for a, b in zip(after.raw.flatten(0, 1), sample.raw.flatten(0, 1), strict=True)]
    assert kept == [section != 7 for section in range(18)]
