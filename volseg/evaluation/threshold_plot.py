"""Plot of scores over the threshold of a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volseg.errors import TargetError
from volseg.plots import new_figure

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from volseg.evaluation.metrics import PixelCurves, SegmentationScores

_MAX_RANGE = 0.1
"""Maximum range of the axis of V_rand and V_info below the best score: good maps differ in the third decimal."""


def save_thresholds(path: Path, curves: PixelCurves, segmentation: SegmentationScores | None = None) -> None:
    """Draw precision, recall and F1 of pixels, and below them V_rand and V_info of cells, over the threshold, as PNG.

    Dots and the legend mark the best scores.

    Args:
        path: PNG to write; an existing file is replaced.
        curves: pixel scores.
        segmentation: scores of cells; optional.

    Raises:
        TargetError: the file cannot be written.
    """
    panels = 1 if segmentation is None else 2
    figure = new_figure(figsize=(8, 3.5 * panels), layout="constrained")
    upper, *lower = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    _draw_pixels(upper, curves)
    if segmentation is not None:
        _draw_cells(lower[0], segmentation)
    for axes in (upper, *lower):
        axes.grid(color="0.92")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    (upper, *lower)[-1].set(xlabel="membrane probability that counts as membrane", xlim=(0, 1))
    try:
        figure.savefig(path, dpi=120, format="png")
    except OSError as error:
        raise TargetError(f"cannot write {path}: {error.strerror or error}; choose a writable folder") from error


def _draw_pixels(axes: Axes, curves: PixelCurves) -> None:
    axes.plot(curves.threshold, curves.precision, color="0.45", linewidth=1, linestyle="--", label="precision")
    axes.plot(curves.threshold, curves.recall, color="0.45", linewidth=1, linestyle=":", label="recall")
    index = int(curves.f1.argmax())
    threshold, best = float(curves.threshold[index]), float(curves.f1[index])
    axes.plot(curves.threshold, curves.f1, color="tab:orange", label=f"F1: {best:.4f} at {threshold:.2f}")
    _mark(axes, threshold, best, "tab:orange")
    axes.set(ylabel="pixels", ylim=(0, 1.02))


def _draw_cells(axes: Axes, scores: SegmentationScores) -> None:
    families = (
        ("V_rand", scores.v_rand, scores.best_v_rand, scores.v_rand_threshold, "tab:blue"),
        ("V_info", scores.v_info, scores.best_v_info, scores.v_info_threshold, "tab:green"),
    )
    for name, values, best, threshold, colour in families:
        label = f"{name}: {best:.4f} at {threshold:.1f}"
        axes.plot(scores.thresholds, values, "o-", color=colour, markersize=3, label=label)
        _mark(axes, threshold, best, colour)
    top = max(scores.best_v_rand, scores.best_v_info)
    low = max(min(*scores.v_rand, *scores.v_info), min(scores.best_v_rand, scores.best_v_info) - _MAX_RANGE)
    margin = 0.08 * (top - low) or 0.01
    axes.set(ylabel="cells", ylim=(low - margin, top + margin))


def _mark(axes: Axes, threshold: float, value: float, colour: str) -> None:
    axes.plot([threshold], [value], "o", color=colour, markersize=8, markeredgecolor="white", zorder=3)
