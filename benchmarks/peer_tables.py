"""The tables of benchmarks.peers, benchmarks.limit and benchmarks.gpu; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.markdown import markdown_table, measured_on, rate
from volseg.models import packaged_models, read_card

if TYPE_CHECKING:
    from collections.abc import Sequence

CASES = ("fusionnet-16", "unet-32", "fusionnet-64")
TITLES = {"fusionnet": "FusionNet", "unet": "U-Net"}
PICTURES = {"peers": "images/benchmarks-peers.svg", "gpu": "images/benchmarks-gpu.svg"}
"""Paths of the pictures, relative to the page."""


@dataclass(frozen=True)
class Target:
    """Minimum ratio of the rates of two methods."""

    method: str
    baseline: str
    min_ratio: float


TARGETS = (
    Target("volseg", "MONAI float32", 4),
    Target("volseg float32", "MONAI float32", 1.3),
    Target("volseg halo 64", "MONAI float32", 5),
    Target("volseg halo 64 float32", "MONAI float32", 1.8),
    Target("volseg halo 64", "torch-em float32", 3),
    Target("volseg", "limit at this halo", 0.9),
)
WORKERS, COPY = 1.85, 0.7
"""Minimum ratios: two workers to one, the identity network to a plain copy."""


def case_title(figures: dict[str, Any]) -> str:
    """Title of a case."""
    return f"{TITLES[figures['network']]}, width {figures['arguments']['width']}"


def method_label(name: str, figures: dict[str, Any]) -> str:
    """Label of a method, with the halo and the precision that volseg chose."""
    side = figures["halo"][-1]
    if name.startswith("limit"):
        return f"{name.replace('this halo', f'halo {side}')}, {figures['precision']}"
    if not name.startswith("volseg"):
        return name.replace(" ", ", ")
    precision = "float32" if name.endswith("float32") else figures["precision"]
    return f"volseg, {'halo 64' if 'halo 64' in name else f'halo auto ({side})'}, {precision}"


def ratios(figures: dict[str, Any], method: str, baseline: str) -> list[float]:
    """Ratio of the rates of two methods in each round; empty if one of them did not run."""
    rates = figures["kvoxel_s"]
    pairs = zip(rates.get(method, []), rates.get(baseline, []), strict=False)
    return [one / other for one, other in pairs]


def with_range(values: Sequence[float]) -> str:
    """Format the median, with minimum and maximum if there are several values."""
    middle = f"{median(values):.2f}"
    return f"{middle} ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else middle


def met(reached: bool) -> str:
    """Format whether a target was reached."""
    return "yes" if reached else "no"


def peers_table(entries: Sequence[dict[str, Any]]) -> str:
    """Rates of all methods for each network, with the picture."""
    if not entries:
        return ""
    rows, notes = [], []
    for entry in entries:
        figures = entry["figures"]
        for name, rates in figures["kvoxel_s"].items():
            computed = figures["computed"].get(name)
            rows.append(
                (
                    case_title(figures),
                    method_label(name, figures),
                    rate(median(rates)),
                    f"{rate(min(rates))} to {rate(max(rates))}" if len(rates) > 1 else "-",
                    f"{computed:.2f}" if computed else "-",
                )
            )
        notes.append(_describe_case(entry))
    heads = ["network", "method", "kvoxel/s", "from - to", "computed per voxel written"]
    picture = f"![Voxels of the map per second for each method, a panel for each network]({PICTURES['peers']})"
    return "\n\n".join([picture, markdown_table(heads, rows), "\n".join(f"- {note}" for note in notes)])


def _describe_case(entry: dict[str, Any]) -> str:
    """Describe how a case was measured."""
    figures = entry["figures"]
    rounds = max(len(rates) for rates in figures["kvoxel_s"].values())
    y, x = figures["shape"]
    sections = f", {figures['sections']} for volseg" if figures["sections"] > 1 else ""
    what = f"sections of {y} x {x} ({figures['data']}), one per round{sections}"
    before = "start-up, statistics and halo" if figures["halo_measured"] else "start-up and statistics"
    packages = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    description = (
        f"{case_title(figures)}: {_weights(figures)}, {what}, {rounds} round{'s' if rounds > 1 else ''}; {before} took "
        f"{figures['start_up_s']:.0f} s. {measured_on(entry)}, torch {figures['torch']}, {packages}; load before "
        f"{figures['load_before']}."
    )
    return description + "".join(f" {name} was left out ({why})." for name, why in figures["left_out"].items())


def _weights(figures: dict[str, Any]) -> str:
    name: str = figures["weights"]
    if name == "random":
        return "random weights"
    original = read_card(packaged_models()[name]).card.arguments["width"] == figures["arguments"]["width"]
    return f"`{name}`" if original else f"`{name}` widened"


def targets_table(entries: Sequence[dict[str, Any]]) -> str:
    """Ratios of volseg's rate to those of peers, with their targets."""
    rows = [
        (
            case_title(entry["figures"]),
            method_label(target.method, entry["figures"]),
            method_label(target.baseline, entry["figures"]),
            with_range(values),
            f"{target.min_ratio:g}",
            met(median(values) >= target.min_ratio),
        )
        for entry in entries
        for target in TARGETS
        if (values := ratios(entry["figures"], target.method, target.baseline))
    ]
    return markdown_table(["network", "method", "baseline", "ratio of rates", "target", "met"], rows) if rows else ""


def limit_table(entry: dict[str, Any] | None) -> str:
    """Overhead of Dask, storage and a second worker."""
    if entry is None:
        return ""
    workers, copy = entry["figures"]["workers"], entry["figures"]["copy"]
    measurements = (
        ("two workers, rate / rate of one", workers["scaling"], WORKERS),
        ("two bare forward passes at once, rate / rate of one", workers.get("bare_scaling", []), None),
        ("busy, one worker", workers["busy"]["1"], None),
        ("busy, two workers", workers["busy"]["2"], None),
        ("identity network, rate / rate of a plain copy", copy["share"], COPY),
    )
    rows = [
        (
            name,
            with_range(values),
            f"{minimum:g}" if minimum else "-",
            met(median(values) >= minimum) if minimum else "-",
        )
        for name, values, minimum in measurements
        if values
    ]
    network = f"{entry['figures']['network']}, {workers['precision']}"
    return f"{markdown_table(['', 'measured', 'target', 'met'], rows)}\n\n{network}. Measured on {measured_on(entry)}."


def gpu_table(entry: dict[str, Any] | None) -> str:
    """Forward passes over tile sizes and batches, and whole runs, on a GPU."""
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
    runs = [
        (name, rate(median(rates) / 1e3), with_range([r / 1e3 for r in rates]))
        for name, rates in figures["kvoxel_s"].items()
    ]
    peaks = ", ".join(f"{peak:.0f} TFLOP/s in {precision}" for precision, peak in figures["peak_tflop_s"].items())
    link = figures["link"]
    return "\n\n".join(
        [
            f"![Fraction of the measured peak over tile sizes and batches]({PICTURES['gpu']})",
            markdown_table(["precision", "tile", "batch", "Mvoxel/s", "MFU, %"], rows),
            markdown_table(["", "Mvoxel/s", "of all rounds"], runs),
            f"A large matrix product reaches {peaks}. For each voxel of the map {link['bytes_in']:.2f} bytes go to the "
            f"device and {link['bytes_out']:.2f} come back, which is {100 * link['share']:.1f} % of what the link "
            f"carries ({link['gb_s']:.1f} GB/s). Start-up took {figures['start_up_s']:.0f} s. Measured on "
            f"{measured_on(entry)}, {figures['device']}, torch {figures['torch']}.",
        ]
    )
