"""Curves of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def save_curves(path: Path, losses: Sequence[float], scores: Sequence[tuple[int, float]]) -> None:
    """Draw the loss of every step, its running mean, and the validation scores, as PNG.

    Args:
        path: the picture to write.
        losses: one a step.
        scores: (step, validation F1) pairs; may be empty.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - a third of a second that other pictures need not pay

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, len(losses) + 1)
    window = max(1, len(losses) // 50)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    axes.plot(steps, losses, color="0.8", linewidth=0.7, label="loss")
    axes.plot(steps[window - 1 :], smooth, color="tab:blue", label=f"loss, mean of {window} steps")
    axes.set(xlabel="step", ylabel="cross entropy", ylim=(0, None))
    if scores:
        twin = axes.twinx()
        twin.plot(*zip(*scores, strict=True), "o-", color="tab:orange", markersize=3, label="validation F1")
        twin.set(ylabel="validation F1", ylim=(0, 1))
        twin.legend(loc="lower right")
    axes.legend(loc="upper right")
    figure.savefig(path, dpi=120)
