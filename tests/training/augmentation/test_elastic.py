"""Elastic deformation: smooth, alike for all sections and for raw and labels, and still at a field's edge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.augmentation.samples import agreeing, chances, make_sample, same, uniform
from volseg.training.augmentation.elastic import Elastic, deformed, spread

GRID = Elastic(1, 3, 5.0, still_edge=False)
FIELD = Elastic(1, 12, 2.0, still_edge=True)


def _displacement(elastic: Elastic, shape: tuple[int, int]) -> torch.Tensor:
    vectors = np.stack([elastic.vectors(chance) for chance in chances(4)])
    return spread(torch.from_numpy(vectors).float(), shape)


def test_displacements_of_the_points_have_the_standard_deviation_asked_for() -> None:
    drawn = np.stack([GRID.vectors(chance) for chance in chances(200)])
    assert drawn.shape == (200, 2, 3, 3)
    assert abs(drawn.std() - 5) < 0.3
    assert abs(drawn.mean()) < 0.3


@pytest.mark.parametrize("elastic", [GRID, FIELD])
def test_the_points_are_hit_from_corner_to_corner(elastic: Elastic) -> None:
    side = 4 * (elastic.points - 1) + 1
    vectors = np.stack([elastic.vectors(chance) for chance in chances(4)])
    found = _displacement(elastic, (side, side))
    np.testing.assert_allclose(found[:, :, ::4, ::4], vectors, atol=1e-3)


def test_a_field_is_zero_at_the_edge_and_a_grid_is_not() -> None:
    for elastic, still in ((FIELD, True), (GRID, False)):
        field = _displacement(elastic, (50, 70))
        edges = torch.cat([field[:, :, 0], field[:, :, -1], field[:, :, :, 0], field[:, :, :, -1]], -1)
        assert bool((edges.abs() < 1e-4).all()) == still
        assert field.abs().max() > 1


def test_a_field_leaves_the_voxels_of_the_edge_as_they_are() -> None:
    sample = make_sample((2, 2, 48, 48))
    after = FIELD(sample, chances(2))
    ring = torch.ones(48, 48, dtype=torch.bool)
    ring[1:-1, 1:-1] = False
    torch.testing.assert_close(after.raw[..., ring], sample.raw[..., ring], rtol=0, atol=1e-3)
    assert torch.equal(after.labels[..., ring], sample.labels[..., ring])
    assert not same(after, sample)


def test_the_deformation_is_smooth() -> None:
    field = _displacement(GRID, (64, 64))
    assert field.diff(dim=-1).abs().max() < 1
    assert field.diff(dim=-2).abs().max() < 1
    assert field.diff(2, dim=-1).abs().max() < 0.1


@pytest.mark.parametrize("elastic", [GRID, FIELD])
def test_raw_moves_as_labels_do(elastic: Elastic) -> None:
    sample = agreeing((4, 2, 64, 64))
    # Bicubic interpolation looks two voxels to either side of the nearest.
    after = elastic(replace(sample, weights=uniform(sample.labels, 2).float()), chances(4))
    assert after.weights is not None
    inside = after.weights == 1
    assert inside.float().mean() > 0.1
    torch.testing.assert_close(after.raw[inside], after.labels.float()[inside], rtol=0, atol=1e-4)
    assert not torch.equal(after.labels, sample.labels)


def test_all_sections_of_a_patch_move_alike() -> None:
    sample = make_sample((2, 1, 32, 32))
    stack = replace(sample, raw=sample.raw.repeat(1, 4, 1, 1), labels=sample.labels.repeat(1, 4, 1, 1), weights=None)
    after = GRID(stack, chances(2))
    assert torch.equal(after.raw, after.raw[:, :1].expand_as(after.raw))
    assert torch.equal(after.labels, after.labels[:, :1].expand_as(after.labels))


def test_labels_of_any_size_stay_exact() -> None:
    sample = make_sample()
    large = replace(sample, labels=sample.labels + 2**30 + 1)
    after = GRID(large, chances(3))
    assert set(after.labels.unique().tolist()) <= set(large.labels.unique().tolist())


def test_a_displacement_of_whole_voxels_fetches_those() -> None:
    sample = make_sample((2, 1, 20, 20))
    displacement = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 20, 20)
    after = deformed(sample, [1], displacement)
    assert torch.equal(after.labels[0], sample.labels[0])
    assert torch.equal(after.labels[1, :, :17, 2:], sample.labels[1, :, 3:, :18])
    torch.testing.assert_close(after.raw[1, :, :17, 2:], sample.raw[1, :, 3:, :18], rtol=0, atol=1e-4)


def test_patches_not_met_stay_bit_for_bit() -> None:
    sample = make_sample()
    assert Elastic(0, 3, 10.0, still_edge=False)(sample, chances(3)) is sample
    half = Elastic(0.5, 3, 10.0, still_edge=False)
    kept = [torch.equal(a, b) for a, b in zip(half(sample, chances(3)).raw, sample.raw, strict=True)]
    assert set(kept) == {True, False}
