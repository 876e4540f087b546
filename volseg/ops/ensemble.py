"""Mean and standard deviation of several estimates of a probability map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RunningMean:
    """Mean and standard deviation of estimates added one at a time, without storing them all.

    The last bits of the result depend on the order of the estimates: add them in a fixed order.

    >>> estimates = RunningMean(with_std=True)
    >>> for value in (0.0, 1.0, 0.5, 0.5):
    ...     estimates.add(np.float32([value]))
    >>> estimates.mean().tolist(), estimates.std().round(3).tolist()
    ([0.5], [0.3540000021457672])
    """

    def __init__(self, *, with_std: bool = False) -> None:
        """Start without estimates.

        Args:
            with_std: whether `std` will be called.
        """
        self._count = 0
        self._mean: NDArray[np.float32] | None = None
        self._squares: NDArray[np.float32] | None = None
        self._with_std = with_std

    def add(self, estimate: NDArray[np.float32]) -> None:
        """Add an estimate; all must have the same shape. The first array may be modified in place."""
        self._count += 1
        if self._mean is None:
            self._mean = estimate
            return
        deviation = estimate - self._mean
        self._mean += deviation / np.float32(self._count)
        if self._with_std:
            squares = deviation * (estimate - self._mean)
            self._squares = squares if self._squares is None else self._squares + squares

    def mean(self) -> NDArray[np.float32]:
        """Return the mean of all estimates.

        Raises:
            ValueError: no estimate was added.
        """
        if self._mean is None:
            raise ValueError("no estimates: add one before asking for the mean")
        return self._mean

    def std(self) -> NDArray[np.float32]:
        """Return the population standard deviation of the estimates (divided by n, not n - 1).

        By Welford's method (Technometrics 4:419, 1962), which does not lose digits if the estimates are close together.
        """
        if self._squares is None:
            return np.zeros_like(self.mean())
        return np.sqrt(np.maximum(self._squares, 0) / np.float32(self._count))
