"""Mean and standard deviation of estimates added one at a time."""

from __future__ import annotations

import numpy as np
import pytest

from volseg.ops import RunningMean


@pytest.mark.parametrize("count", [1, 2, 9])
def test_mean_and_std_equal_those_of_all_estimates_at_once(rng: np.random.Generator, count: int) -> None:
    estimates = rng.random((count, 2, 3, 4, 5)).astype(np.float32)
    running = RunningMean(with_std=True)
    for estimate in estimates:
        running.add(estimate.copy())
    np.testing.assert_allclose(running.mean(), estimates.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(running.std(), estimates.std(axis=0), atol=1e-6)


def test_close_estimates_keep_their_std() -> None:
    """Sums of squares would lose it: 1e-4 squared is below float32's resolution at 1."""
    running = RunningMean(with_std=True)
    for value in (0.9999, 1.0, 0.9999, 1.0):
        running.add(np.float32([value]))
    assert running.std()[0] == pytest.approx(5e-5, rel=0.01)


def test_the_mean_of_one_estimate_is_that_estimate() -> None:
    running = RunningMean()
    running.add(np.float32([0.1, 0.7]))
    assert running.mean().tolist() == np.float32([0.1, 0.7]).tolist()


def test_no_estimate_has_no_mean() -> None:
    with pytest.raises(ValueError, match="no estimates"):
        RunningMean().mean()
