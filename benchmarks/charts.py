"""Draws the pictures of docs/benchmarks.md from benchmarks/results; needs no torch.

python -m benchmarks.charts
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.markdown import rate
from benchmarks.peer_tables import CASES, PICTURES, case_title, method_label
from benchmarks.record import read_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1] / "docs"
COLOURS = {"volseg": "#1f77b4", "limit": "#d9d9d9"}
OTHERS = "#e08214"


def draw_peers(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Draw the rate of each method, a panel for each network; error bars span the slowest and fastest round.

    Args:
        path: the SVG to write.
        entries: results of benchmarks.peers, one for each network.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow, and tables do not need it

    heights = [len(entry["figures"]["kvoxel_s"]) for entry in entries]
    figure = Figure(figsize=(8.5, 0.28 * sum(heights) + 0.9 * len(entries)), layout="constrained")
    panels = figure.subplots(len(entries), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, entry in zip(panels, entries, strict=True):
        _draw_rates(axes, entry["figures"])
    panels[-1].set_xlabel("thousand voxels of the map a second")
    _save(figure, path)


def _draw_rates(axes: Axes, figures: dict[str, Any]) -> None:
    rates = figures["kvoxel_s"]
    names = list(rates)
    medians = [median(rates[name]) for name in names]
    errors = [[m - min(rates[n]) for n, m in zip(names, medians, strict=True)],
              [max(rates[n]) - m for n, m in zip(names, medians, strict=True)]]  # fmt: skip
    colours = [COLOURS.get(name.partition(" ")[0], OTHERS) for name in names]
    axes.barh(range(len(names)), medians, xerr=errors, color=colours, ecolor="0.3", capsize=2)
    axes.set_yticks(range(len(names)), [method_label(name, figures) for name in names])
    axes.invert_yaxis()
    for row, name in enumerate(names):
        axes.text(max(rates[name]), row, f"  {rate(medians[row])}", va="center", fontsize=8)
    axes.set_xlim(0, 1.12 * max(map(max, rates.values())))
    axes.set_title(case_title(figures), loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def draw_gpu(path: Path, entry: dict[str, Any]) -> None:
    """Draw the fraction of the measured peak over tile sizes, a line for each batch and precision.

    Args:
        path: the SVG to write.
        entry: result of benchmarks.gpu.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow, and tables do not need it

    figure = Figure(figsize=(8.5, 4), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in entry["figures"]["forward"] if row["kvoxel_s"]]
    batches = sorted({row["batch"] for row in rows})
    for precision, batch in dict.fromkeys((row["precision"], row["batch"]) for row in rows):
        line = [row for row in rows if (row["precision"], row["batch"]) == (precision, batch)]
        style = "o-" if precision == "bfloat16" else "s:"
        label = f"{precision}, batch {batch}"
        colour = f"C{batches.index(batch)}"
        axes.plot([row["side"] for row in line], [100 * row["mfu"] for row in line], style, label=label, color=colour)
    axes.set(xlabel="side of the tile, voxels", ylabel="MFU, %", title=entry["figures"]["device"])
    sides = sorted({row["side"] for row in rows})
    axes.set_xticks(sides, [str(side) for side in sides])
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """Write an SVG with text as text, reproducible byte for byte."""
    from matplotlib import rc_context  # noqa: PLC0415 - as above

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "volseg"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def draw_charts() -> None:
    """Draw every picture that has a result."""
    peers = [entry for case in CASES if (entry := read_result(f"peers-{case}")) is not None]
    if peers:
        draw_peers(DOCS / PICTURES["peers"], peers)
    gpu = read_result("gpu")
    if gpu is not None:
        draw_gpu(DOCS / PICTURES["gpu"], gpu)


if __name__ == "__main__":
    draw_charts()
