"""Whom chance meets: every draw is a patch's own, whatever batch, worker or process it is in."""

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
    """Anything that varies a sample: same shapes and types, no change to the one it is given."""

    def __call__(self, sample: Sample, chances: RNGs) -> Sample: ...


def rngs_of(seeds: Tensor, stream: int) -> RNGs:
    """Generators of the patches' seeds (N,), for one kind of augmentation.

    Each kind has a stream of its own, so that one switched on or off leaves the others' draws alone.
    """
    return [np.random.default_rng(np.random.SeedSequence(seed % 2**64, spawn_key=(stream,))) for seed in seeds.tolist()]


def sample_patches(chances: RNGs, share: float) -> list[int]:
    """The patches that something happens to: none at share 0, all at share 1."""
    return [patch for patch, chance in enumerate(chances) if chance.random() < share]


def sample_sections(chances: RNGs, share: float, depth: int) -> list[tuple[int, np.random.Generator]]:
    """The sections that something happens to, counted through the patches (patch x depth + z), each with its chance."""
    return [
        (patch * depth + int(z), chance)
        for patch, chance in enumerate(chances)
        for z in np.flatnonzero(chance.random(depth) < share)
    ]


def per_patch(values: Sequence[float], like: Tensor) -> Tensor:
    """One value for each patch, (N, 1, 1, 1), on the device of `like`."""
    return torch.tensor(values, dtype=torch.float32, device=like.device).view(-1, 1, 1, 1)
