"""Tables of single components: engines, cropping, memory, malloc, scheduler, scale, and rounding of packaged models."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.markdown import markdown_table, measured_on
from benchmarks.peer_tables import case_title, met, with_range

if TYPE_CHECKING:
    from collections.abc import Sequence

GROWTH_MIB, CPU_MS, BUSY, RESUME_S = 95, 0.3, 0.98, 30
"""Limits for a run of a million blocks: MiB that driver and scheduler grow (100 MB), their CPU milliseconds per block,
busy fraction of the fleet, seconds to find the remaining blocks."""
SCALE_MIB, SCALE_RESUME_S, STATUS_S = 500, 60, 2
"""Limits for a hundred million blocks: MiB of driver and scheduler, seconds to find the remaining blocks, and of a
status."""
PEAK_ERROR = 0.2
"""Maximum error of a predicted peak, as a fraction of the prediction."""
MIN_WITHIN_LEVEL, MAX_ERROR, MAX_V_RAND_CHANGE = 0.98, 16, 0.001
"""Limits of rounding: fraction of voxels within one grey level, maximum error in grey levels, change of the score."""


def engines_table(entry: dict[str, Any] | None) -> str:
    """Seconds of a forward pass in each engine, and the ratio of volseg's to it."""
    if entry is None:
        return ""
    figures, rows = entry["figures"], []
    for network in figures["networks"]:
        for name, seconds in network["seconds"].items():
            precision = name.rpartition(" ")[2]
            reference = network["seconds"][f"volseg {precision}"]
            ratio = with_range([a / b for a, b in zip(reference, seconds, strict=True)])
            rows.append((case_title(network), name.replace(" ", ", "), f"{median(seconds):.3f}", ratio))
    side = figures["core"][-1] + 2 * figures["halo"][-1]
    versions = f"torch {figures['torch']}" + (f", OpenVINO {figures['openvino']}" if "openvino" in figures else "")
    heads = ["network", "engine", "seconds per tile", "volseg / engine"]
    note = f"Tiles of {side} x {side}, {figures['threads']} threads, {versions}; engines in turns."
    return f"{markdown_table(heads, rows)}\n\n{note} Measured on {measured_on(entry)}."


def cropping_table(entry: dict[str, Any] | None) -> str:
    """Operations and time that cropping to the core saves, for each halo."""
    if entry is None:
        return ""
    figures = entry["figures"]
    rows = [
        (
            case_title(network),
            str(row["halo"]),
            f"{row['computed']:.2f}",
            f"{100 * (1 - row['operations_share']):.0f} %",
            f"{100 * (1 - median(row['seconds_share'])):.0f} %",
        )
        for network in figures["networks"]
        for row in network["rows"]
    ]
    heads = ["network", "halo", "computed per voxel written", "operations saved", "time saved"]
    side = figures["core"][-1]
    note = f"Cores of {side} x {side} in {figures['precision']}, {figures['threads']} threads."
    return f"{markdown_table(heads, rows)}\n\n{note} Measured on {measured_on(entry)}."


def memory_table(entry: dict[str, Any] | None) -> str:
    """Measured peaks of workers, and the predicted ones."""
    if entry is None:
        return ""
    figures = entry["figures"]
    rows = []
    for network in figures["networks"]:
        ratios = [peak / plan for peak, plan in zip(network["measured"], network["predicted"], strict=True)]
        peaks = (f"{median(network[name]):.0f}" for name in ("predicted", "measured"))
        ok = all(abs(ratio - 1) <= PEAK_ERROR for ratio in ratios)
        rows.append((case_title(network), network["precision"], *peaks, with_range(ratios), met(ok)))
    heads = ["network", "precision", "predicted, MiB", "measured, MiB", "measured / predicted", "met"]
    side = figures["block"][-1]
    note = f"Blocks of {side} x {side} ({figures['data']}), as many at once as in a run; a new worker for each round."
    return f"{markdown_table(heads, rows)}\n\n{note} Measured on {measured_on(entry)}."


def malloc_table(entry: dict[str, Any] | None) -> str:
    """Time and peak memory of a forward pass for each setting of malloc, relative to its defaults."""
    if entry is None:
        return ""
    figures = entry["figures"]
    rows = [
        (
            name,
            *(with_range(setting[ratio]) for ratio in ("cpu_seconds_ratio", "peak_ratio")),
            str(setting["page_faults"]),
        )
        for name, setting in figures["settings"].items()
    ]
    heads = ["setting", "CPU time / default", "peak memory / default", "page faults a pass"]
    side = figures["core"][-1]
    note = f"Tiles of {side} x {side} through {figures['model']}, {figures['threads']} thread."
    return f"{markdown_table(heads, rows)}\n\n{note} Measured on {measured_on(entry)}."


def scheduler_table(entry: dict[str, Any] | None) -> str:
    """Overhead of a block without its network, and how it grows with the number of blocks."""
    if entry is None:
        return ""
    figures = entry["figures"]
    runs, fleet, journal = figures["no work"], figures["fleet"], figures["journal"]
    blocks = runs[-1]["blocks"]
    growth = runs[-1]["driver_and_scheduler_mib"] - runs[0]["driver_and_scheduler_mib"]
    cpu = max(run["driver_and_scheduler_cpu_ms_a_block"] for run in runs)
    measurements = (
        (f"growth of driver and scheduler from 1,000 to {blocks:,} blocks, MiB", f"{growth:.1f}", GROWTH_MIB,
         growth <= GROWTH_MIB),
        ("their CPU time per block, ms", f"{cpu:.2f}", CPU_MS, cpu <= CPU_MS),
        (f"busy fraction of {fleet['workers']} workers at {fleet['seconds_a_block']:g} s per block",
         f"{fleet['busy_share']:.3f}", BUSY, fleet["busy_share"] >= BUSY),
        ("bytes fetched from workers", str(fleet["bytes_fetched_from_workers"]), 0,
         fleet["bytes_fetched_from_workers"] == 0),
        (f"finding the remaining blocks of {journal['marks']:,}, seconds", f"{journal['resume_seconds']:.1f}",
         RESUME_S, journal["resume_seconds"] <= RESUME_S),
    )  # fmt: skip
    rows = [(name, value, f"{target:g}", met(ok)) for name, value, target, ok in measurements]
    return f"{markdown_table(['', 'measured', 'target', 'met'], rows)}\n\nMeasured on {measured_on(entry)}."


def scale_table(entry: dict[str, Any] | None) -> str:
    """Bookkeeping of very many blocks: in process, through Dask, and in a journal that a script wrote."""
    if entry is None:
        return ""
    driver, journal, dask = (entry["figures"][name] for name in ("driver", "journal", "dask"))
    marks, blocks = f"{journal['marks']:,} marks", f"{driver['blocks']:,} blocks"
    measurements = (
        (f"CPU time of a driver without Dask per block, of {blocks}, ms", driver["driver_cpu_ms_a_block"], CPU_MS),
        (f"CPU time of driver and scheduler per block, of {dask['blocks']:,} through Dask, ms",
         dask["driver_and_scheduler_cpu_ms_a_block"], CPU_MS),
        ("memory of driver and scheduler, MiB", dask["driver_and_scheduler_mib"], SCALE_MIB),
        (f"memory of a driver that resumes {marks}, MiB", journal["process_mib"], SCALE_MIB),
        ("finding the remaining blocks, seconds", journal["resume_seconds"], SCALE_RESUME_S),
        ("their status, seconds", journal["status_seconds"], STATUS_S),
    )  # fmt: skip
    rows = [(name, f"{value:.3g}", f"{limit:g}", met(value <= limit)) for name, value, limit in measurements]
    size = f"A mark takes {journal['bytes_a_mark']:g} bytes."
    return f"{markdown_table(['', 'measured', 'target', 'met'], rows)}\n\n{size} Measured on {measured_on(entry)}."


def rounding_table(entries: Sequence[dict[str, Any]]) -> str:
    """Effect of the precision that `auto` chose, on sections that a packaged model was not trained on."""
    rows = []
    for entry in entries:
        effect = entry["figures"]["against_float32"]
        name = entry["benchmark"].removeprefix("packaged-")
        change, within = effect["v_rand_change"], effect["share_within_one_level"]
        ok = within >= MIN_WITHIN_LEVEL and effect["greatest"] <= MAX_ERROR and abs(change) <= MAX_V_RAND_CHANGE
        cells = (effect["precision"], f"{100 * within:.2f} %", str(effect["greatest"]), f"{change:+.5f}", met(ok))
        rows.append((f"`{name}`", *cells))
    heads = ["model", "precision", "within one grey level", "max. error", "change of V_rand", "met"]
    return f"{markdown_table(heads, rows)}\n\nMeasured on {measured_on(entries[0])}." if rows else ""
