"""Curves of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray


def save_curves(path: Path, log: Sequence[Mapping[str, Any]]) -> None:
    """Draw the loss of every step, its running mean, the learning rate, and the validation scores, as PNG.

    Args:
        path: the picture to write.
        log: a training's entries: each with its `step`, and a `loss` and `learning_rate` or the scores of a
            validation, whose names begin with `validation_`.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - a third of a second that other pictures need not pay

    figure = Figure(figsize=(9, 7), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    learned = [entry for entry in log if "loss" in entry]
    steps, losses = ([entry[key] for entry in learned] for key in ("step", "loss"))
    window = max(1, len(losses) // 50)
    smooth: NDArray[np.float64] = np.convolve(losses or [0.0], np.ones(window) / window, mode="valid")[: len(losses)]
    upper.plot(steps, losses, color="0.8", linewidth=0.7, label="loss")
    upper.plot(steps[window - 1 :], smooth, color="tab:blue", label=f"loss, mean of {window} steps")
    upper.set(ylabel="loss")
    # The first steps of fresh weights would press all later ones flat.
    upper.set_ylim(0, 1.5 * float(np.quantile(losses or [1.0], 0.98)) or 1.0)
    rate = upper.twinx()
    rate.plot(steps, [entry["learning_rate"] for entry in learned], ":", color="tab:green", label="learning rate")
    rate.set(ylabel="learning rate (dotted)", ylim=(0, None))
    upper.legend(loc="upper right")
    _draw_scores(lower, [entry for entry in log if "loss" not in entry])
    lower.set(xlabel="step")
    figure.savefig(path, dpi=110)


def _draw_scores(axes: Axes, validations: Sequence[Mapping[str, Any]]) -> None:
    names = [name for name in (validations[0] if validations else {}) if name.startswith("validation_")]
    for name in names:
        points = [(entry["step"], entry[name]) for entry in validations]
        axes.plot(*zip(*points, strict=True), "o-", markersize=3, label=name.removeprefix("validation_"))
    for entry in [entry for entry in validations if entry["best"]][-1:]:
        axes.axvline(entry["step"], color="0.6", linewidth=1, label=f"best: step {entry['step']}")
    axes.set(ylabel="on held-out sections")
    if names:
        axes.legend(loc="lower right")
    else:
        axes.text(0.5, 0.5, "no sections are held out", ha="center", transform=axes.transAxes)


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
