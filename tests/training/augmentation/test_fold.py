"""Folds: a dark band with ignored labels, and tissue shifted towards it from both sides."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.training.augmentation.samples import STACK, batch_rngs, labels_as_raw, make_sample
from volseg.training.augmentation.fold import Fold, FoldLine, fold_sections
from volseg.training.data.sample import IGNORED

VERTICAL = FoldLine(point=(30.0, 32.0), normal=(0.0, 1.0), width=6.0, shift=5.0, darkness=3.0)


def test_the_band_is_dark_and_its_labels_are_ignored() -> None:
    sample = make_sample((1, 1, 64, 64))
    after = fold_sections(sample, [0], [VERTICAL])
    assert after.raw[..., 30:35].mean() < -2.5
    assert after.raw[..., 30:35].std() < 0.5
    assert bool((after.labels[..., 29:36] == IGNORED).all())


def test_raw_labels_and_weights_on_both_sides_move_to_the_line() -> None:
    sample = make_sample((1, 1, 64, 64))
    after = fold_sections(sample, [0], [VERTICAL])
    assert sample.weights is not None
    assert after.weights is not None
    for before, now in ((sample.raw, after.raw), (sample.labels, after.labels), (sample.weights, after.weights)):
        assert torch.equal(now[..., 5:28], before[..., :23])
        assert torch.equal(now[..., 37:59], before[..., 42:])


@pytest.mark.parametrize("seed", range(3))
def test_raw_beside_the_band_matches_its_labels(seed: int) -> None:
    after = Fold(1)(labels_as_raw(STACK), batch_rngs(3, seed))
    known = after.labels != IGNORED
    assert torch.equal(after.raw[known], after.labels[known].float())


def test_every_line_crosses_its_section() -> None:
    sample = replace(make_sample((40, 1, 48, 48)), labels=torch.ones(40, 1, 48, 48, dtype=torch.int32))
    after = Fold(1)(sample, batch_rngs(40))
    ignored = (after.labels == IGNORED).float().mean((1, 2, 3))
    assert bool((ignored > 0).all())
    assert bool((ignored < 0.6).all())
    assert len(set(ignored.tolist())) > 30


def test_probability_0_and_other_sections_are_unchanged() -> None:
    sample = make_sample(STACK)
    assert Fold(0)(sample, batch_rngs(3)) is sample
    after = fold_sections(sample, [7], [VERTICAL])
    unchanged = [torch.equal(a, b) for a, b in zip(after.raw.flatten(0, 1), sample.raw.flatten(0, 1), strict=True)]
    assert unchanged == [section != 7 for section in range(18)]
