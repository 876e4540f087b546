"""Line plots of a training, and of halos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from volseg.plots.figure import new_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from volseg.blocks import Zyx


def save_training_curves(path: Path, log: Sequence[Mapping[str, Any]]) -> None:
    """Plot loss, running mean of the loss, learning rate and validation scores to a PNG.

    Args:
        path: of the PNG.
        log: entries with a `step`, and either `loss` and `learning_rate`, or scores whose names begin with
            `validation_`.
    """
    figure = new_figure(figsize=(9, 7), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    train_entries = [entry for entry in log if "loss" in entry]
    steps, losses = ([entry[key] for entry in train_entries] for key in ("step", "loss"))
    window = max(1, len(losses) // 50)
    smooth: NDArray[np.float64] = np.convolve(losses or [0.0], np.ones(window) / window, mode="valid")[: len(losses)]
    upper.plot(steps, losses, color="0.8", linewidth=0.7, label="loss")
    upper.plot(steps[window - 1 :], smooth, color="tab:blue", label=f"loss, mean of {window} steps")
    upper.set(ylabel="loss")
    # Losses of the first steps would compress the rest of the axis.
    upper.set_ylim(0, 1.5 * float(np.quantile(losses or [1.0], 0.98)) or 1.0)
    rate = upper.twinx()
    rate.plot(steps, [entry["learning_rate"] for entry in train_entries], ":", color="tab:green")
    rate.set(ylabel="learning rate (dotted)", ylim=(0, None))
    upper.legend(loc="upper right")
    _plot_scores(lower, [entry for entry in log if "loss" not in entry])
    lower.set(xlabel="step")
    figure.savefig(path, dpi=110)


def _plot_scores(axes: Axes, validations: Sequence[Mapping[str, Any]]) -> None:
    names = [name for name in (validations[0] if validations else {}) if name.startswith("validation_")]
    for name in names:
        points = [(entry["step"], entry[name]) for entry in validations]
        axes.plot(*zip(*points, strict=True), "o-", markersize=3, label=name.removeprefix("validation_"))
    for entry in [entry for entry in validations if entry["best"]][-1:]:
        axes.axvline(entry["step"], color="0.6", linewidth=1, label=f"best: step {entry['step']}")
    axes.set(ylabel="validation score")
    if names:
        axes.legend(loc="lower right")
    else:
        axes.text(0.5, 0.5, "no validation sections", ha="center", transform=axes.transAxes)


def plot_halo_curve(
    path: Path | BinaryIO, rows: Sequence[tuple[Zyx, float, float, float]], selected: Zyx, title: str
) -> None:
    """Plot the error and the cost of each halo to a PNG; halos with the same z form one line.

    Args:
        path: of the PNG, or a file that is open to write.
        rows: halo (z, y, x) in voxels, its maximum error in grey levels, the fraction of voxels within one grey level,
            and the number of voxels computed for each voxel written.
        selected: the halo in use.
        title: above the plot.
    """
    figure = new_figure(figsize=(8, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    cost = upper.twinx()
    z_values = sorted({halo[0] for halo, *_ in rows})
    for z in z_values:
        line = [row for row in rows if row[0][0] == z]
        x = [halo[2] for halo, *_ in line]
        suffix = f", z {z}" if len(z_values) > 1 else ""
        upper.plot(x, [row[1] for row in line], "o-", markersize=3, label=f"maximum error{suffix}")
        cost.plot(x, [row[3] for row in line], ":", color="0.5")
        lower.plot(x, [100 * (1 - row[2]) for row in line], "o-", markersize=3)
    for axes in (upper, lower):
        axes.axvline(selected[2], color="tab:green", linewidth=1, label=f"selected: {', '.join(map(str, selected))}")
        axes.set_yscale("symlog", linthresh=1 if axes is upper else 0.01)
        axes.set_ylim(bottom=0)
    upper.set(ylabel="grey levels", title=title)
    cost.set(ylabel="voxels computed per voxel written (dotted)", ylim=(0, None))
    lower.set(xlabel="halo along y and x (voxels)", ylabel="voxels off by more\nthan one grey level (%)")
    upper.legend(loc="upper right")
    figure.savefig(path, dpi=120)
