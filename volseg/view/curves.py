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


def save_halo_curve(
    path: Path,
    rows: Sequence[tuple[tuple[int, int, int], float, float, float]],
    chosen: tuple[int, int, int],
    title: str,
) -> None:
    """Draw what each halo leaves wrong and what it costs, as PNG.

    Where a network looks along z too, halos of one z are a line.

    Args:
        path: the picture to write.
        rows: halo (z, y, x) in voxels, its greatest error in grey levels, the share of voxels within one grey level,
            and the voxels computed for each that is written.
        chosen: the halo that is used.
        title: above the picture.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - a third of a second that other pictures need not pay

    figure = Figure(figsize=(8, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    cost = upper.twinx()
    for z in sorted({halo[0] for halo, *_ in rows}):
        across = [row for row in rows if row[0][0] == z]
        sides = [halo[2] for halo, *_ in across]
        behind = f", z {z}" if len({halo[0] for halo, *_ in rows}) > 1 else ""
        upper.plot(sides, [row[1] for row in across], "o-", markersize=3, label=f"greatest error{behind}")
        cost.plot(sides, [row[3] for row in across], ":", color="0.5")
        lower.plot(sides, [100 * (1 - row[2]) for row in across], "o-", markersize=3)
    for axes in (upper, lower):
        axes.axvline(chosen[2], color="tab:green", linewidth=1, label=f"chosen: {', '.join(map(str, chosen))}")
        axes.set_yscale("symlog", linthresh=1 if axes is upper else 0.01)
        axes.set_ylim(bottom=0)
    upper.set(ylabel="grey levels", title=title)
    cost.set(ylabel="computed for each voxel written (dotted)", ylim=(0, None))
    lower.set(xlabel="halo along y and x (voxels)", ylabel="voxels off by more\nthan one grey level (%)")
    upper.legend(loc="upper right")
    figure.savefig(path, dpi=120)
