"""Elastic deformation: smooth, equal for all sections, raw and labels, and fixed at the border of a field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.augmentation.samples import batch_rngs, labels_as_raw, make_sample, same, uniform
from volseg.training.augmentation.elastic import ElasticTransform, deform, upsample_displacement

GRID = ElasticTransform(1, 3, 5.0, fixed_border=False)
FIELD = ElasticTransform(1, 12, 2.0, fixed_border=True)


def _displacement(elastic: ElasticTransform, shape: tuple[int, int]) -> torch.Tensor:
    vectors = np.stack([elastic.sample_vectors(rng) for rng in batch_rngs(4)])
    return upsample_displacement(torch.from_numpy(vectors).float(), shape)


def test_displacements_of_the_points_have_the_requested_standard_deviation() -> None:
    vectors = np.stack([GRID.sample_vectors(rng) for rng in batch_rngs(200)])
    assert vectors.shape == (200, 2, 3, 3)
    assert abs(vectors.std() - 5) < 0.3
    assert abs(vectors.mean()) < 0.3


@pytest.mark.parametrize("elastic", [GRID, FIELD])
def test_displacements_at_the_points_are_those_sampled(elastic: ElasticTransform) -> None:
    side = 4 * (elastic.points - 1) + 1
    vectors = np.stack([elastic.sample_vectors(rng) for rng in batch_rngs(4)])
    displacement = _displacement(elastic, (side, side))
    np.testing.assert_allclose(displacement[:, :, ::4, ::4], vectors, atol=1e-3)


def test_a_field_is_zero_at_the_border_and_a_grid_is_not() -> None:
    for elastic, fixed in ((FIELD, True), (GRID, False)):
        field = _displacement(elastic, (50, 70))
        edges = torch.cat([field[:, :, 0], field[:, :, -1], field[:, :, :, 0], field[:, :, :, -1]], -1)
        assert bool((edges.abs() < 1e-4).all()) == fixed
        assert field.abs().max() > 1


def test_a_field_does_not_change_voxels_of_the_border() -> None:
    sample = make_sample((2, 2, 48, 48))
    after = FIELD(sample, batch_rngs(2))
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
def test_raw_moves_as_labels_do(elastic: ElasticTransform) -> None:
    sample = labels_as_raw((4, 2, 64, 64))
    # Bicubic interpolation looks two voxels to either side of the nearest.
    after = elastic(replace(sample, weights=uniform(sample.labels, 2).float()), batch_rngs(4))
    assert after.weights is not None
    inside = after.weights == 1
    assert inside.float().mean() > 0.1
    torch.testing.assert_close(after.raw[inside], after.labels.float()[inside], rtol=0, atol=1e-4)
    assert not torch.equal(after.labels, sample.labels)


def test_all_sections_of_a_patch_move_equally() -> None:
    sample = make_sample((2, 1, 32, 32))
    stack = replace(sample, raw=sample.raw.repeat(1, 4, 1, 1), labels=sample.labels.repeat(1, 4, 1, 1), weights=None)
    after = GRID(stack, batch_rngs(2))
    assert torch.equal(after.raw, after.raw[:, :1].expand_as(after.raw))
    assert torch.equal(after.labels, after.labels[:, :1].expand_as(after.labels))


def test_large_label_values_are_exact() -> None:
    sample = make_sample()
    large = replace(sample, labels=sample.labels + 2**30 + 1)
    after = GRID(large, batch_rngs(3))
    assert set(after.labels.unique().tolist()) <= set(large.labels.unique().tolist())


def test_a_displacement_by_whole_voxels_takes_those_voxels() -> None:
    sample = make_sample((2, 1, 20, 20))
    displacement = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 20, 20)
    after = deform(sample, [1], displacement)
    assert torch.equal(after.labels[0], sample.labels[0])
    assert torch.equal(after.labels[1, :, :17, 2:], sample.labels[1, :, 3:, :18])
    torch.testing.assert_close(after.raw[1, :, :17, 2:], sample.raw[1, :, 3:, :18], rtol=0, atol=1e-4)


def test_patches_not_sampled_stay_bit_for_bit() -> None:
    sample = make_sample()
    assert ElasticTransform(0, 3, 10.0, fixed_border=False)(sample, batch_rngs(3)) is sample
    half = ElasticTransform(0.5, 3, 10.0, fixed_border=False)
    unchanged = [torch.equal(a, b) for a, b in zip(half(sample, batch_rngs(3)).raw, sample.raw, strict=True)]
    assert set(unchanged) == {True, False}
