"""Samples for tests of augmentation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from volseg.training.data.sample import IGNORED, Sample

SQUARE = (3, 1, 64, 64)
STACK = (3, 6, 40, 40)


def make_sample(shape: tuple[int, int, int, int] = SQUARE, *, seed: int = 0, weights: bool = True) -> Sample:
    """Noise of mean 0 and standard deviation 1; labels in blocks of 8, some of them IGNORED; different seeds."""
    rng = torch.Generator().manual_seed(seed)
    count, depth, height, width = shape
    coarse = torch.randint(0, 6, (count, depth, -(-height // 8), -(-width // 8)), generator=rng, dtype=torch.int32)
    coarse[coarse == 5] = IGNORED
    labels = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, :, :height, :width].contiguous()
    raw = torch.randn(shape, generator=rng)
    seeds = torch.arange(count) + 1000 * seed
    return Sample(raw, labels, torch.rand(shape, generator=rng) if weights else None, seeds)


def labels_as_raw(shape: tuple[int, int, int, int] = SQUARE) -> Sample:
    """A sample whose raw values and weights are its labels."""
    sample = make_sample(shape)
    return replace(sample, raw=sample.labels.float(), weights=sample.labels.float())


def batch_rngs(count: int, seed: int = 0) -> list[np.random.Generator]:
    """One generator for each patch of a batch."""
    return [np.random.default_rng([seed, patch]) for patch in range(count)]


def same(one: Sample, other: Sample) -> bool:
    """Whether two samples are bit-identical."""
    assert (one.weights is None) == (other.weights is None)
    if one.weights is not None and other.weights is not None and not torch.equal(one.weights, other.weights):
        return False
    return torch.equal(one.raw, other.raw) and torch.equal(one.labels, other.labels)


def uniform(labels: torch.Tensor, margin: int) -> torch.Tensor:
    """Mask of voxels whose labels are all equal within a margin along y and x."""
    values = labels.float()
    size = 2 * margin + 1
    max_label = torch.nn.functional.max_pool2d(values, size, 1, margin)
    min_label = -torch.nn.functional.max_pool2d(-values, size, 1, margin)
    return max_label == min_label
