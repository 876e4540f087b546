"""Scores over the threshold at which a map is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volseg.errors import TargetError

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from volseg.evaluation.metrics import PixelCurves, SegmentationScores

_SHOWN_BELOW_BEST = 0.1
"""How far below the best the axis of V_rand and V_info goes at most: good maps differ in the third decimal."""


def save_thresholds(path: Path, curves: PixelCurves, segmentation: SegmentationScores | None = None) -> None:
    """Draw precision, recall and F1 of pixels, and below them V_rand and V_info of cells, over the threshold, as PNG.

    A dot and the legend tell where a score is best.

    Args:
        path: the picture to write; one that exists is replaced.
        curves: pixel scores.
        segmentation: scores of cells; None leaves them out.

    Raises:
        TargetError: the picture cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - a third of a second that other pictures need not pay

    panels = 1 if segmentation is None else 2
    figure = Figure(figsize=(8, 3.5 * panels), layout="constrained")
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
        raise TargetError(
            f"cannot write {path}: {error.strerror or error}; choose a folder that can be written"
        ) from error


def _draw_pixels(axes: Axes, curves: PixelCurves) -> None:
    axes.plot(curves.threshold, curves.precision, color="0.45", linewidth=1, linestyle="--", label="precision")
    axes.plot(curves.threshold, curves.recall, color="0.45", linewidth=1, linestyle=":", label="recall")
    place = int(curves.f1.argmax())
    threshold, best = float(curves.threshold[place]), float(curves.f1[place])
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
    low = max(min(*scores.v_rand, *scores.v_info), min(scores.best_v_rand, scores.best_v_info) - _SHOWN_BELOW_BEST)
    around = 0.08 * (top - low) or 0.01
    axes.set(ylabel="cells", ylim=(low - around, top + around))


def _mark(axes: Axes, threshold: float, value: float, colour: str) -> None:
    axes.plot([threshold], [value], "o", color=colour, markersize=8, markeredgecolor="white", zorder=3)
