"""U-Net's weight map, compared with its equation computed directly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from volseg.ops import boundaries, weight_map


def cells(rng: np.random.Generator, shape: tuple[int, int], count: int) -> np.ndarray:
    """Cells around random points, their ids far apart, with membrane between them and an unknown corner."""
    points = rng.integers(0, shape, (count, 2))
    _, nearest = cKDTree(points).query(np.moveaxis(np.indices(shape), 0, -1).reshape(-1, 2))
    ids = 7 * nearest.reshape(shape) + 5
    ids[boundaries(ids[None], 4)[0]] = 0
    ids[:9, :12] = -1
    return ids


def border_by_brute_force(ids: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """The second term, from a distance transform of the whole section per cell."""
    distances = [distance_transform_edt(ids != cell) for cell in np.unique(ids[ids > 0])]
    if len(distances) < 2:
        return np.zeros(ids.shape)
    nearest, second = np.sort(distances, axis=0)[:2]
    return w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))


@pytest.mark.parametrize(("w0", "sigma", "count"), [(10, 5, 20), (10, 1.5, 20), (3, 12, 5), (0, 5, 4), (10, 5, 1)])
def test_the_map_equals_its_equation(rng: np.random.Generator, w0: float, sigma: float, count: int) -> None:
    ids = cells(rng, (80, 110), count)
    is_cell, known = ids > 0, ids >= 0
    fraction = is_cell.sum() / known.sum()
    classes = np.ones(ids.shape) if fraction == 1 else np.where(is_cell, 0.5 / fraction, 0.5 / (1 - fraction))
    expected = np.where(known, classes + border_by_brute_force(ids, w0, sigma), 0)
    np.testing.assert_allclose(weight_map(ids, w0=w0, sigma=sigma), expected, atol=1e-4)


def test_two_single_voxels_have_the_weights_computed_by_hand() -> None:
    ids = np.array([[1, 0, 0, 0, 2]])
    border = 10 * np.exp(-(np.array([4, 4, 4, 4, 4]) ** 2) / 50)
    np.testing.assert_allclose(weight_map(ids)[0], border + np.array([1.25, 5 / 6, 5 / 6, 5 / 6, 1.25]), rtol=1e-6)


def test_without_borders_the_classes_have_equal_weight_and_the_mean_is_one(rng: np.random.Generator) -> None:
    ids = cells(rng, (60, 60), 9)
    weights = weight_map(ids, w0=0)
    assert weights[ids > 0].sum() == pytest.approx(weights[ids == 0].sum(), rel=1e-5)
    assert weights[ids >= 0].mean() == pytest.approx(1, rel=1e-5)
    assert not weights[ids < 0].any()


@pytest.mark.parametrize("value", [0, 3])
def test_a_section_of_one_class_has_weight_one(value: int) -> None:
    assert (weight_map(np.full((5, 6), value)) == 1).all()


def test_an_unknown_section_has_weight_zero() -> None:
    assert not weight_map(np.full((5, 6), -1)).any()


def test_the_map_is_independent_of_orientation_and_ids(rng: np.random.Generator) -> None:
    ids = cells(rng, (50, 70), 12)
    np.testing.assert_allclose(weight_map(ids.T[::-1]), weight_map(ids).T[::-1], atol=1e-4)
    renamed = np.where(ids > 0, 1 + ids.max() - ids, ids).astype(np.int32)
    np.testing.assert_allclose(weight_map(renamed), weight_map(ids), atol=1e-6)
