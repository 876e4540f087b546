"""Chance: never at share 0, always at share 1, and as often as the share between."""

from __future__ import annotations

import torch

from tests.training.augmentation.samples import chances
from volseg.training.augmentation.rng import rngs_of, sample_patches, sample_sections


def test_share_0_is_never_and_share_1_is_always() -> None:
    assert sample_patches(chances(50), 0) == []
    assert sample_patches(chances(50), 1) == list(range(50))
    assert sample_sections(chances(9), 0, 4) == []
    assert [section for section, _ in sample_sections(chances(9), 1, 4)] == list(range(36))


def test_a_share_between_is_met_as_often() -> None:
    assert 220 < len(sample_patches(chances(1000), 0.25)) < 280
    assert 220 < len(sample_sections(chances(250), 0.25, 4)) < 280


def test_a_section_draws_from_the_chance_of_its_own_patch() -> None:
    drawn = chances(5)
    assert all(chance is drawn[section // 4] for section, chance in sample_sections(drawn, 0.5, 4))


def test_streams_and_seeds_differ_and_any_int64_is_a_seed() -> None:
    seeds = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63)])
    first = [float(chance.random()) for stream in range(3) for chance in rngs_of(seeds, stream)]
    assert len(set(first)) == len(first)
    assert first == [float(chance.random()) for stream in range(3) for chance in rngs_of(seeds, stream)]
