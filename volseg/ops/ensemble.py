"""Several estimates of one probability map, made one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RunningMean:
    """Mean and standard deviation of estimates that come one by one; two sums are held, never all estimates.

    The order of the estimates is part of the result's last bits, so whoever adds them keeps to one order.

    >>> votes = RunningMean(with_std=True)
    >>> for vote in (0.0, 1.0, 0.5, 0.5):
    ...     votes.add(np.float32([vote]))
    >>> votes.mean().tolist(), votes.std().round(3).tolist()
    ([0.5], [0.3540000021457672])
    """

    def __init__(self, *, with_std: bool = False) -> None:
        """Begin without an estimate.

        Args:
            spread: whether the standard deviation will be asked for.
        """
        self._count = 0
        self._mean: NDArray[np.float32] | None = None
        self._squares: NDArray[np.float32] | None = None
        self._spread = with_std

    def add(self, estimate: NDArray[np.float32]) -> None:
        """Take one estimate; all must have one shape. The first one's memory may be kept and changed."""
        self._count += 1
        if self._mean is None:
            self._mean = estimate
            return
        away = estimate - self._mean
        self._mean += away / np.float32(self._count)
        if self._spread:
            squares = away * (estimate - self._mean)
            self._squares = squares if self._squares is None else self._squares + squares

    def mean(self) -> NDArray[np.float32]:
        """The mean of all estimates.

        Raises:
            ValueError: there was none.
        """
        if self._mean is None:
            raise ValueError("the mean of no estimates is not known")
        return self._mean

    def std(self) -> NDArray[np.float32]:
        """The standard deviation of the estimates about their mean (divided by their number, not one less).

        The sums are Welford's (Technometrics 4:419, 1962), which do not lose digits where estimates lie close.
        """
        if self._squares is None:
            return np.zeros_like(self.mean())
        return np.sqrt(np.maximum(self._squares, 0) / np.float32(self._count))
