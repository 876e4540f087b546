"""The tables of benchmarks.peers, benchmarks.limit and benchmarks.gpu; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.markdown import markdown, rate, where
from volseg.models import packaged_models, read_card

if TYPE_CHECKING:
    from collections.abc import Sequence

CASES = ("fusionnet-16", "unet-32", "fusionnet-64")
TITLES = {"fusionnet": "FusionNet", "unet": "U-Net"}
PICTURES = {"peers": "images/benchmarks-peers.svg", "gpu": "images/benchmarks-gpu.svg"}
"""Where the page's pictures are, from the page."""


@dataclass(frozen=True)
class Target:
    """How many times as fast one contender is to be as another."""

    contender: str
    against: str
    least: float


TARGETS = (
    Target("volseg", "MONAI float32", 4),
    Target("volseg float32", "MONAI float32", 1.3),
    Target("volseg halo 64", "MONAI float32", 5),
    Target("volseg halo 64 float32", "MONAI float32", 1.8),
    Target("volseg halo 64", "torch-em float32", 3),
    Target("volseg", "limit at this halo", 0.9),
)
WORKERS, COPY = 1.85, 0.7
"""What two workers are to be of one, and the identity network of a plain copy."""


def title(figures: dict[str, Any]) -> str:
    """What a case is called."""
    return f"{TITLES[figures['network']]}, width {figures['arguments']['width']}"


def label(name: str, figures: dict[str, Any]) -> str:
    """What a contender of a case is called, with the halo and the precision that were left to volseg."""
    side = figures["halo"][-1]
    if name.startswith("limit"):
        return f"{name.replace('this halo', f'halo {side}')}, {figures['precision']}"
    if not name.startswith("volseg"):
        return name.replace(" ", ", ")
    precision = "float32" if name.endswith("float32") else figures["precision"]
    return f"volseg, {'halo 64' if 'halo 64' in name else f'halo auto ({side})'}, {precision}"


def ratios(figures: dict[str, Any], contender: str, against: str) -> list[float]:
    """How many times as fast as another a contender was, in each round; none where one of them did not run."""
    rates = figures["kvoxel_s"]
    pairs = zip(rates.get(contender, []), rates.get(against, []), strict=False)
    return [one / other for one, other in pairs]


def with_range(values: Sequence[float]) -> str:
    """The median, and where there are several the smallest and the largest."""
    middle = f"{median(values):.2f}"
    return f"{middle} ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else middle


def met(reached: bool) -> str:
    """Whether a target was reached, in a word."""
    return "yes" if reached else "no"


def peers_table(entries: Sequence[dict[str, Any]]) -> str:
    """Every contender's rate, for each network; with the picture."""
    if not entries:
        return ""
    rows, notes = [], []
    for entry in entries:
        figures = entry["figures"]
        for name, rates in figures["kvoxel_s"].items():
            computed = figures["computed"].get(name)
            rows.append(
                (
                    title(figures),
                    label(name, figures),
                    rate(median(rates)),
                    f"{rate(min(rates))} to {rate(max(rates))}" if len(rates) > 1 else "-",
                    f"{computed:.2f}" if computed else "-",
                )
            )
        notes.append(_told(entry))
    heads = ["network", "contender", "kvoxel/s", "from - to", "computed for each written"]
    picture = f"![Voxels of the map a second of each contender, a panel for each network]({PICTURES['peers']})"
    return "\n\n".join([picture, markdown(heads, rows), "\n".join(f"- {note}" for note in notes)])


def _told(entry: dict[str, Any]) -> str:
    """How a case was measured, in a sentence or two."""
    figures = entry["figures"]
    rounds = max(len(rates) for rates in figures["kvoxel_s"].values())
    y, x = figures["shape"]
    own = f", {figures['sections']} for volseg" if figures["sections"] > 1 else ""
    what = f"sections of {y} x {x} ({figures['data']}), one a round{own}"
    before = "start-up, statistics and halo" if figures["halo_measured"] else "start-up and statistics"
    packages = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    told = (
        f"{title(figures)}: {_weights(figures)}, {what}, {rounds} round{'s' if rounds > 1 else ''}; {before} took "
        f"{figures['start_up_s']:.0f} s. {where(entry)}, torch {figures['torch']}, {packages}; load before "
        f"{figures['load_before']}."
    )
    return told + "".join(f" {name} was left out ({why})." for name, why in figures["left_out"].items())


def _weights(figures: dict[str, Any]) -> str:
    name: str = figures["weights"]
    if name == "random":
        return "random weights"
    own = read_card(packaged_models()[name]).card.arguments["width"] == figures["arguments"]["width"]
    return f"`{name}`" if own else f"`{name}` widened"


def targets_table(entries: Sequence[dict[str, Any]]) -> str:
    """How many times as fast volseg is, and what it was to be."""
    rows = [
        (
            title(entry["figures"]),
            label(target.contender, entry["figures"]),
            label(target.against, entry["figures"]),
            with_range(values),
            f"{target.least:g}",
            met(median(values) >= target.least),
        )
        for entry in entries
        for target in TARGETS
        if (values := ratios(entry["figures"], target.contender, target.against))
    ]
    return markdown(["network", "contender", "against", "times as fast", "target", "met"], rows) if rows else ""


def limit_table(entry: dict[str, Any] | None) -> str:
    """What Dask, storage and a second worker cost."""
    if entry is None:
        return ""
    workers, copy = entry["figures"]["workers"], entry["figures"]["copy"]
    measured = (
        ("two workers, times as fast as one", workers["scaling"], WORKERS),
        ("two bare forward passes at once, times as fast as one", workers.get("bare_scaling", []), None),
        ("busy, one worker", workers["busy"]["1"], None),
        ("busy, two workers", workers["busy"]["2"], None),
        ("identity network, times as fast as a plain copy", copy["share"], COPY),
    )
    rows = [
        (what, with_range(values), f"{least:g}" if least else "-", met(median(values) >= least) if least else "-")
        for what, values, least in measured
        if values
    ]
    network = f"{entry['figures']['network']}, {workers['precision']}"
    return f"{markdown(['', 'measured', 'target', 'met'], rows)}\n\n{network}. Measured on {where(entry)}."


def gpu_table(entry: dict[str, Any] | None) -> str:
    """Forward passes over tile sizes and batches, and the whole way, on a GPU."""
    if entry is None:
        return ""
    figures = entry["figures"]
    rows = [
        (
            row["precision"],
            f"{row['side']} x {row['side']}",
            str(row["batch"]),
            rate(row["kvoxel_s"] / 1e3) if row["kvoxel_s"] else "does not fit",
            f"{100 * row['mfu']:.0f}" if row["kvoxel_s"] else "-",
        )
        for row in figures["forward"]
    ]
    ways = [
        (name, rate(median(rates) / 1e3), with_range([r / 1e3 for r in rates]))
        for name, rates in figures["kvoxel_s"].items()
    ]
    peaks = ", ".join(f"{peak:.0f} TFLOP/s in {precision}" for precision, peak in figures["peak_tflop_s"].items())
    link = figures["link"]
    return "\n\n".join(
        [
            f"![Share of the measured peak over tile sizes and batches]({PICTURES['gpu']})",
            markdown(["precision", "tile", "batch", "Mvoxel/s", "MFU, %"], rows),
            markdown(["", "Mvoxel/s", "of each round"], ways),
            f"A large matrix product reaches {peaks}. For each voxel of the map {link['bytes_in']:.2f} bytes go to the "
            f"device and {link['bytes_out']:.2f} come back, which is {100 * link['share']:.1f} % of what the link "
            f"carries ({link['gb_s']:.1f} GB/s). Start-up took {figures['start_up_s']:.0f} s. Measured on "
            f"{where(entry)}, {figures['device']}, torch {figures['torch']}.",
        ]
    )
