"""Orientations: voxels are permuted, raw and labels alike."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.training.augmentation.samples import batch_rngs, labels_as_raw, make_sample
from volseg.training.augmentation.orientations import RandomOrientation


def _orientations(height: int, width: int, *, flip_z: bool) -> set[tuple[float, ...]]:
    sample = make_sample((120, 2, height, width))
    raw = torch.arange(2.0 * height * width).view(1, 2, height, width).repeat(120, 1, 1, 1)
    after = RandomOrientation(flip_z=flip_z)(replace(sample, raw=raw), batch_rngs(120))
    assert after.raw.shape == raw.shape
    return {tuple(patch.flatten().tolist()) for patch in after.raw}


def test_eight_orientations_occur_and_sixteen_with_flips_along_z() -> None:
    assert len(_orientations(3, 3, flip_z=False)) == 8
    assert len(_orientations(3, 3, flip_z=True)) == 16


def test_patches_that_are_not_square_are_only_flipped() -> None:
    assert len(_orientations(2, 3, flip_z=False)) == 4
    assert len(_orientations(2, 3, flip_z=True)) == 8


def test_no_voxel_is_lost() -> None:
    assert {tuple(sorted(patch)) for patch in _orientations(3, 3, flip_z=True)} == {tuple(float(i) for i in range(18))}


def test_raw_and_weights_move_with_the_labels() -> None:
    after = RandomOrientation(flip_z=True)(labels_as_raw((8, 3, 16, 16)), batch_rngs(8))
    assert torch.equal(after.raw, after.labels.float())
    assert after.weights is not None
    assert torch.equal(after.weights, after.labels.float())
