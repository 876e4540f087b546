"""Random choices: never with probability 0, always with 1, and reproducible from the seed."""

from __future__ import annotations

import torch

from tests.training.augmentation.samples import batch_rngs
from volseg.training.augmentation.rng import make_rngs, sample_patches, sample_sections


def test_probability_0_chooses_none_and_probability_1_all() -> None:
    assert sample_patches(batch_rngs(50), 0) == []
    assert sample_patches(batch_rngs(50), 1) == list(range(50))
    assert sample_sections(batch_rngs(9), 0, 4) == []
    assert [section for section, _ in sample_sections(batch_rngs(9), 1, 4)] == list(range(36))


def test_the_frequency_is_the_probability() -> None:
    assert 220 < len(sample_patches(batch_rngs(1000), 0.25)) < 280
    assert 220 < len(sample_sections(batch_rngs(250), 0.25, 4)) < 280


def test_a_section_uses_the_generator_of_its_patch() -> None:
    rngs = batch_rngs(5)
    assert all(rng is rngs[section // 4] for section, rng in sample_sections(rngs, 0.5, 4))


def test_streams_and_seeds_differ_and_any_int64_is_a_seed() -> None:
    seeds = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63)])
    first = [float(rng.random()) for stream in range(3) for rng in make_rngs(seeds, stream)]
    assert len(set(first)) == len(first)
    assert first == [float(rng.random()) for stream in range(3) for rng in make_rngs(seeds, stream)]
