"""Laws of the centre-lines."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from volseg.phantom.neurites import MARGIN_NM, grow_neurites, lifting_map

EXTENT = (600.0, 1200.0, 1200.0)


@pytest.fixture(scope="module")
def neurites():
    return grow_neurites(EXTENT, np.random.default_rng(0))


def test_neurites_stay_within_the_margin(neurites):
    points = np.vstack([n.points for n in neurites])
    assert points.min() >= -MARGIN_NM
    assert np.all(points.max(0) <= np.array(EXTENT) + MARGIN_NM)


def test_neurites_fill_the_tissue(neurites):
    """No point of the volume is far from every neurite."""
    places = np.random.default_rng(1).uniform((0, 0, 0), EXTENT, size=(2000, 3))
    nearest = np.full(len(places), np.inf)
    for neurite in neurites:
        distance, at = cKDTree(neurite.points).query(places)
        nearest = np.minimum(nearest, distance - neurite.radius[at])
    assert np.percentile(nearest, 99) < 90
    assert nearest.max() < 180


def test_neurites_do_not_cross(neurites):
    for i, one in enumerate(neurites[:40]):
        tree = cKDTree(one.points)
        for other in neurites[i + 1 : 40]:
            distance, _ = tree.query(other.points)
            assert distance.min() > 0.5 * np.median(one.radius)


def test_tangents_are_unit_vectors(neurites):
    for neurite in neurites:
        np.testing.assert_allclose(np.linalg.norm(neurite.tangents, axis=1), 1, atol=1e-9)


def test_the_lifting_map_gives_the_power_distance():
    rng = np.random.default_rng(0)
    points, radius = rng.uniform(0, 500, (40, 3)), rng.uniform(20, 90, 40)
    query = rng.uniform(0, 500, 3)
    lift = np.sum((lifting_map(points, radius) - np.append(query, 0)) ** 2, axis=1)
    power = np.sum((points - query) ** 2, axis=1) - radius**2
    np.testing.assert_allclose(lift - radius.max() ** 2, power, atol=1e-6)
