"""Pixel scores at every threshold at once, from two histograms that grow block by block.

Stored probability has 256 values, so counting how often each occurs on membrane and off it says all that a threshold
could ever say, whatever the size of the volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from volseg.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEVELS = 256


def membrane_of(labels: NDArray[Any], membrane: Literal["zero", "nonzero"]) -> NDArray[np.bool_]:
    """Which voxels of a ground truth are membrane; same shape.

    Args:
        labels: ids or a mask.
        membrane: `zero` where cells carry ids (or 255), `nonzero` for a membrane mask.

    >>> membrane_of(np.uint8([0, 7]), "zero").tolist()
    [True, False]
    """
    mask: NDArray[np.bool_] = labels == 0 if membrane == "zero" else labels != 0
    return mask


class PixelCounts:
    """How often each stored probability (0 to 255) occurs on membrane and off it."""

    def __init__(self) -> None:
        self.membrane: NDArray[np.int64] = np.zeros(_LEVELS, np.int64)
        self.cell: NDArray[np.int64] = np.zeros(_LEVELS, np.int64)

    def add(
        self, stored: NDArray[np.uint8], membrane: NDArray[np.bool_], ignored: NDArray[np.bool_] | None = None
    ) -> None:
        """Count one block; all arrays have its shape, and voxels that are ignored count for nothing.

        Raises:
            ConfigError: the shapes differ.
        """
        if stored.shape != membrane.shape:
            raise ConfigError(f"prediction {stored.shape} and truth {membrane.shape} differ in shape")
        cell = ~membrane
        if ignored is not None:
            membrane, cell = membrane & ~ignored, cell & ~ignored
        self.membrane += np.bincount(stored[membrane], minlength=_LEVELS)
        self.cell += np.bincount(stored[cell], minlength=_LEVELS)


@dataclass(frozen=True, slots=True)
class PixelScores:
    """Pixel scores, membrane being what is looked for.

    Attributes:
        threshold: probability from which a pixel counts as membrane.
        precision: share of what was called membrane that is.
        recall: share of membrane that was called so.
        f1: harmonic mean of the two.
        pixel_error: share of pixels called wrongly.
        best_f1: the highest F1 of all thresholds.
        best_threshold: where it is reached.
        average_precision: area under precision over recall, summed at each threshold without interpolation.
        membrane_share: share of membrane in the truth.
    """

    threshold: float
    precision: float
    recall: float
    f1: float
    pixel_error: float
    best_f1: float
    best_threshold: float
    average_precision: float
    membrane_share: float


@dataclass(frozen=True)
class PixelCurves:
    """Pixel scores at each of the 256 thresholds k / 255; arrays (256,), float64.

    Attributes:
        threshold: probability from which a pixel counts as membrane.
        precision: share of what was called membrane that is; 0 where nothing was.
        recall: share of membrane that was called so.
        f1: harmonic mean of the two.
        pixel_error: share of pixels called wrongly.
    """

    threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    pixel_error: NDArray[np.float64]


def pixel_curves(counts: PixelCounts) -> PixelCurves:
    """Scores at each threshold, of what was counted.

    Raises:
        ConfigError: a truth without membrane or without cells.
    """
    positives, negatives = int(counts.membrane.sum()), int(counts.cell.sum())
    if not positives or not negatives:
        raise ConfigError(
            f"the truth has {positives} membrane and {negatives} other voxels, so there is nothing to score; "
            "check which labels are membrane (--membrane zero or nonzero)"
        )
    # true[t], false[t]: pixels with a stored probability of at least t.
    true, false = (np.cumsum(count[::-1])[::-1] for count in (counts.membrane, counts.cell))
    return PixelCurves(
        threshold=np.arange(_LEVELS) / 255,
        precision=true / np.maximum(true + false, 1),
        recall=true / positives,
        f1=2 * true / (true + false + positives),
        pixel_error=(positives - true + false) / (positives + negatives),
    )


def pixel_scores(counts: PixelCounts, threshold: float = 0.5) -> PixelScores:
    """Scores of what was counted.

    Args:
        counts: of the whole volume.
        threshold: probability in [0, 1] from which a pixel counts as membrane.

    Raises:
        ConfigError: a threshold outside [0, 1], or a truth without membrane or without cells.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold {threshold} is not between 0 and 1")
    curves = pixel_curves(counts)
    # From strict thresholds to loose ones, each gain in recall weighs the precision reached there.
    average = float(np.sum(np.diff(curves.recall[::-1], prepend=0.0) * curves.precision[::-1]))
    at, best = min(int(np.ceil(threshold * 255 - 1e-9)), 255), int(np.argmax(curves.f1))
    membrane = int(counts.membrane.sum())
    return PixelScores(
        threshold=threshold,
        precision=float(curves.precision[at]),
        recall=float(curves.recall[at]),
        f1=float(curves.f1[at]),
        pixel_error=float(curves.pixel_error[at]),
        best_f1=float(curves.f1[best]),
        best_threshold=best / 255,
        average_precision=average,
        membrane_share=membrane / (membrane + int(counts.cell.sum())),
    )
