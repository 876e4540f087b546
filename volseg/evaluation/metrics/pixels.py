"""Pixel scores at all thresholds, from two histograms that are summed block by block.

Probability as uint8 has 256 values, so the histograms on membrane and on other voxels determine the scores at every
threshold, for volumes of any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from volseg.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEVELS = 256


def membrane_mask(labels: NDArray[Any], membrane: Literal["zero", "nonzero"]) -> NDArray[np.bool_]:
    """Mask of membrane in a ground truth, same shape.

    Args:
        labels: ids or a mask.
        membrane: `zero` if cells have ids (or 255), `nonzero` for a membrane mask.

    >>> membrane_mask(np.uint8([0, 7]), "zero").tolist()
    [True, False]
    """
    mask: NDArray[np.bool_] = labels == 0 if membrane == "zero" else labels != 0
    return mask


class PixelCounts:
    """Histograms of the probability (0 to 255) on membrane and on other voxels."""

    def __init__(self) -> None:
        self.membrane: NDArray[np.int64] = np.zeros(_LEVELS, np.int64)
        self.cell: NDArray[np.int64] = np.zeros(_LEVELS, np.int64)

    def add(
        self, probability: NDArray[np.uint8], membrane: NDArray[np.bool_], ignored: NDArray[np.bool_] | None = None
    ) -> None:
        """Add a block; all arrays have its shape, and ignored voxels do not count.

        Raises:
            ConfigError: the shapes differ.
        """
        if probability.shape != membrane.shape:
            raise ConfigError(f"prediction {probability.shape} and truth {membrane.shape} differ in shape")
        cell = ~membrane
        if ignored is not None:
            membrane, cell = membrane & ~ignored, cell & ~ignored
        self.membrane += np.bincount(probability[membrane], minlength=_LEVELS)
        self.cell += np.bincount(probability[cell], minlength=_LEVELS)


@dataclass(frozen=True, slots=True)
class PixelScores:
    """Pixel scores, with membrane as the positive class.

    Attributes:
        threshold: probability from which a pixel counts as membrane.
        precision: fraction of predicted membrane that is membrane.
        recall: fraction of membrane that is predicted.
        f1: harmonic mean of the two.
        pixel_error: fraction of misclassified pixels.
        best_f1: the highest F1 of all thresholds.
        best_threshold: threshold of `best_f1`.
        average_precision: area under precision over recall, summed at each threshold without interpolation.
        membrane_share: fraction of membrane in the truth.
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
        precision: fraction of predicted membrane that is membrane; 0 if none is predicted.
        recall: fraction of membrane that is predicted.
        f1: harmonic mean of the two.
        pixel_error: fraction of misclassified pixels.
    """

    threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    pixel_error: NDArray[np.float64]


def pixel_curves(counts: PixelCounts) -> PixelCurves:
    """Compute the scores at each threshold.

    Raises:
        ConfigError: a truth without membrane or without cells.
    """
    positives, negatives = int(counts.membrane.sum()), int(counts.cell.sum())
    if not positives or not negatives:
        raise ConfigError(
            f"the truth has {positives} membrane and {negatives} other voxels, so there is nothing to score; "
            "check which labels are membrane (--membrane zero or nonzero)"
        )
    # true[t], false[t]: pixels with a probability of at least t.
    true, false = (np.cumsum(count[::-1])[::-1] for count in (counts.membrane, counts.cell))
    return PixelCurves(
        threshold=np.arange(_LEVELS) / 255,
        precision=true / np.maximum(true + false, 1),
        recall=true / positives,
        f1=2 * true / (true + false + positives),
        pixel_error=(positives - true + false) / (positives + negatives),
    )


def pixel_scores(counts: PixelCounts, threshold: float = 0.5) -> PixelScores:
    """Compute the scores at a threshold.

    Args:
        counts: of all blocks.
        threshold: probability in [0, 1] from which a pixel counts as membrane.

    Raises:
        ConfigError: a threshold outside [0, 1], or a truth without membrane or without cells.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold {threshold} is not between 0 and 1")
    curves = pixel_curves(counts)
    # From high thresholds to low ones, the precision is weighted by the gain in recall.
    average = float(np.sum(np.diff(curves.recall[::-1], prepend=0.0) * curves.precision[::-1]))
    index, best = min(int(np.ceil(threshold * 255 - 1e-9)), 255), int(np.argmax(curves.f1))
    membrane = int(counts.membrane.sum())
    return PixelScores(
        threshold=threshold,
        precision=float(curves.precision[index]),
        recall=float(curves.recall[index]),
        f1=float(curves.f1[index]),
        pixel_error=float(curves.pixel_error[index]),
        best_f1=float(curves.f1[best]),
        best_threshold=best / 255,
        average_precision=average,
        membrane_share=membrane / (membrane + int(counts.cell.sum())),
    )
