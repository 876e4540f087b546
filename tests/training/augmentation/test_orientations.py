"""Orientations: the same voxels elsewhere, raw and labels alike."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.training.augmentation.samples import agreeing, chances, make_sample
from volseg.training.augmentation.orientations import Orient


def _ways(height: int, width: int, *, stack: bool) -> set[tuple[float, ...]]:
    sample = make_sample((120, 2, height, width))
    raw = torch.arange(2.0 * height * width).view(1, 2, height, width).repeat(120, 1, 1, 1)
    after = Orient(stack=stack)(replace(sample, raw=raw), chances(120))
    assert after.raw.shape == raw.shape
    return {tuple(patch.flatten().tolist()) for patch in after.raw}


def test_all_eight_are_met_and_twice_as_many_of_stacks() -> None:
    assert len(_ways(3, 3, stack=False)) == 8
    assert len(_ways(3, 3, stack=True)) == 16


def test_patches_that_are_not_square_are_only_flipped() -> None:
    assert len(_ways(2, 3, stack=False)) == 4
    assert len(_ways(2, 3, stack=True)) == 8


def test_every_voxel_is_kept() -> None:
    assert {tuple(sorted(way)) for way in _ways(3, 3, stack=True)} == {tuple(float(i) for i in range(18))}


def test_raw_and_weights_go_where_the_labels_go() -> None:
    after = Orient(stack=True)(agreeing((8, 3, 16, 16)), chances(8))
    assert torch.equal(after.raw, after.labels.float())
    assert after.weights is not None
    assert torch.equal(after.weights, after.labels.float())
