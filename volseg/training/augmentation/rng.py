"""Per-patch random generators, independent of batching and workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from volseg.training.data.sample import Sample

RNGs: TypeAlias = "Sequence[np.random.Generator]"
"""One generator for each patch of a batch."""


class Augmentation(Protocol):
    """A random change of a sample that keeps shapes and types and does not modify its input."""

    def __call__(self, sample: Sample, rngs: RNGs) -> Sample: ...


def make_rngs(seeds: Tensor, stream: int) -> RNGs:
    """Create the generators of one kind of augmentation from the seeds of the patches (N,).

    Each kind has its own stream, so that switching one on or off does not change the others.
    """
    return [np.random.default_rng(np.random.SeedSequence(seed % 2**64, spawn_key=(stream,))) for seed in seeds.tolist()]


def sample_patches(rngs: RNGs, probability: float) -> list[int]:
    """Choose patches at random; returns their indices in the batch."""
    return [patch for patch, rng in enumerate(rngs) if rng.random() < probability]


def sample_sections(rngs: RNGs, probability: float, depth: int) -> list[tuple[int, np.random.Generator]]:
    """Choose sections at random; returns their index in the batch (patch x depth + z) and their patch's generator."""
    return [
        (patch * depth + int(z), rng)
        for patch, rng in enumerate(rngs)
        for z in np.flatnonzero(rng.random(depth) < probability)
    ]


def per_patch(values: Sequence[float], like: Tensor) -> Tensor:
    """Convert one value per patch to a tensor (N, 1, 1, 1) on the device of `like`."""
    return torch.tensor(values, dtype=torch.float32, device=like.device).view(-1, 1, 1, 1)
