"""The pictures of docs/benchmarks.md, drawn from benchmarks/results; needs no torch.

python -m benchmarks.charts
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.comparison import CASES, PICTURES, label, title
from benchmarks.markdown import rate
from benchmarks.record import results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1] / "docs"
COLOURS = {"volseg": "#1f77b4", "limit": "#d9d9d9"}
OTHERS = "#e08214"


def draw_peers(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Draw the rate of each contender, a panel for each network; the whiskers are the slowest and fastest round.

    Args:
        path: the SVG to write.
        entries: what benchmarks.peers recorded, one for each network.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - a third of a second that tables need not pay

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
    middle = [median(rates[name]) for name in names]
    reach = [[m - min(rates[n]) for n, m in zip(names, middle, strict=True)],
             [max(rates[n]) - m for n, m in zip(names, middle, strict=True)]]  # fmt: skip
    colours = [COLOURS.get(name.partition(" ")[0], OTHERS) for name in names]
    axes.barh(range(len(names)), middle, xerr=reach, color=colours, ecolor="0.3", capsize=2)
    axes.set_yticks(range(len(names)), [label(name, figures) for name in names])
    axes.invert_yaxis()
    for place, name in enumerate(names):
        axes.text(max(rates[name]), place, f"  {rate(middle[place])}", va="center", fontsize=8)
    axes.set_xlim(0, 1.12 * max(map(max, rates.values())))
    axes.set_title(title(figures), loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def draw_gpu(path: Path, entry: dict[str, Any]) -> None:
    """Draw the share of the measured peak over tile sizes, a line for each batch and precision.

    Args:
        path: the SVG to write.
        entry: what benchmarks.gpu recorded.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - a third of a second that tables need not pay

    figure = Figure(figsize=(8.5, 4), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in entry["figures"]["forward"] if row["kvoxel_s"]]
    batches = sorted({row["batch"] for row in rows})
    for precision, batch in dict.fromkeys((row["precision"], row["batch"]) for row in rows):
        line = [row for row in rows if (row["precision"], row["batch"]) == (precision, batch)]
        style = "o-" if precision == "bfloat16" else "s:"
        shown = f"{precision}, batch {batch}"
        colour = f"C{batches.index(batch)}"
        axes.plot([row["side"] for row in line], [100 * row["mfu"] for row in line], style, label=shown, color=colour)
    axes.set(xlabel="side of the tile, voxels", ylabel="MFU, %", title=entry["figures"]["device"])
    sides = sorted({row["side"] for row in rows})
    axes.set_xticks(sides, [str(side) for side in sides])
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """Write an SVG whose text stays text, the same bytes for the same figures."""
    from matplotlib import rc_context  # noqa: PLC0415 - as above

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "volseg"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def draw_charts() -> None:
    """Draw every picture that there are figures for."""
    compared = [entry for case in CASES if (entry := results(f"peers-{case}")) is not None]
    if compared:
        draw_peers(DOCS / PICTURES["peers"], compared)
    measured = results("gpu")
    if measured is not None:
        draw_gpu(DOCS / PICTURES["gpu"], measured)


if __name__ == "__main__":
    draw_charts()
