"""Laws of smooth noise."""

import numpy as np
import pytest

from volseg.phantom.noise import smooth_noise

STEP = (30.0, 6.0, 6.0)


@pytest.mark.parametrize("scale_nm", [30.0, 100.0])
def test_variance_is_one_whatever_the_scale(scale_nm):
    noise = smooth_noise((40, 300, 300), STEP, scale_nm, np.random.default_rng(0))
    assert abs(noise.mean()) < 0.1
    assert 0.85 < noise.std() < 1.15


def test_scale_is_physical_not_in_voxels():
    """One step along z is five along y, and changes the field about five times as much."""
    noise = smooth_noise((40, 200, 200), STEP, 400.0, np.random.default_rng(0))
    along_z = np.abs(np.diff(noise, axis=0)).mean()
    along_y = np.abs(np.diff(noise, axis=1)).mean()
    assert 3.5 < along_z / along_y < 6.5
