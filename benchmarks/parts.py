"""The tables of benchmarks.engines, benchmarks.cropping, benchmarks.memory, benchmarks.scheduler, and of rounding."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.comparison import met, title, with_range
from benchmarks.markdown import markdown, where

if TYPE_CHECKING:
    from collections.abc import Sequence

GROWTH_MIB, CPU_MS, BUSY, RESUME_S = 95, 2, 0.95, 30
"""What a run of a million blocks may cost: MiB (100 MB) that driver and scheduler grow, their milliseconds a block, the
share of its time that a fleet works, seconds to find what is left to do."""
PEAK = 0.2
"""How far a worker's peak may be from what was predicted, as a share of that."""
LEVEL_SHARE, GREATEST, V_RAND = 0.98, 16, 0.001
"""What bfloat16 may change: voxels within one grey level, the greatest change, the score."""


def engines_table(entry: dict[str, Any] | None) -> str:
    """Seconds of a forward pass in each engine, and how many times as fast as volseg's it is."""
    if entry is None:
        return ""
    figures, rows = entry["figures"], []
    for each in figures["networks"]:
        for name, seconds in each["seconds"].items():
            precision = name.rpartition(" ")[2]
            own = each["seconds"][f"volseg {precision}"]
            times = with_range([a / b for a, b in zip(own, seconds, strict=True)])
            rows.append((title(each), name.replace(" ", ", "), f"{median(seconds):.3f}", times))
    side = figures["core"][-1] + 2 * figures["halo"][-1]
    versions = f"torch {figures['torch']}" + (f", OpenVINO {figures['openvino']}" if "openvino" in figures else "")
    heads = ["network", "engine", "seconds a tile", "times as fast as volseg"]
    note = f"Tiles of {side} x {side}, {figures['threads']} threads, {versions}; engines by turns."
    return f"{markdown(heads, rows)}\n\n{note} Measured on {where(entry)}."


def cropping_table(entry: dict[str, Any] | None) -> str:
    """What computing only what the core needs saves, at each halo."""
    if entry is None:
        return ""
    figures = entry["figures"]
    rows = [
        (
            title(each),
            str(row["halo"]),
            f"{row['computed']:.2f}",
            f"{100 * (1 - row['operations_share']):.0f} %",
            f"{100 * (1 - median(row['seconds_share'])):.0f} %",
        )
        for each in figures["networks"]
        for row in each["rows"]
    ]
    heads = ["network", "halo", "computed for each written", "operations saved", "time saved"]
    side = figures["core"][-1]
    note = f"Cores of {side} x {side} in {figures['precision']}, {figures['threads']} threads."
    return f"{markdown(heads, rows)}\n\n{note} Measured on {where(entry)}."


def memory_table(entry: dict[str, Any] | None) -> str:
    """What workers took at their peaks, against what was predicted."""
    if entry is None:
        return ""
    figures = entry["figures"]
    rows = []
    for each in figures["networks"]:
        shares = [taken / told for taken, told in zip(each["measured"], each["predicted"], strict=True)]
        peaks = (f"{median(each[name]):.0f}" for name in ("predicted", "measured"))
        ok = all(abs(share - 1) <= PEAK for share in shares)
        rows.append((title(each), each["precision"], *peaks, with_range(shares), met(ok)))
    heads = ["network", "precision", "predicted, MiB", "measured, MiB", "measured / predicted", "met"]
    side = figures["block"][-1]
    note = f"Blocks of {side} x {side} ({figures['data']}), as many at once as a run has, each time on a new worker."
    return f"{markdown(heads, rows)}\n\n{note} Measured on {where(entry)}."


def scheduler_table(entry: dict[str, Any] | None) -> str:
    """What a block costs apart from its network, up to as many blocks as were run."""
    if entry is None:
        return ""
    figures = entry["figures"]
    runs, fleet, journal = figures["no work"], figures["fleet"], figures["journal"]
    most = runs[-1]["blocks"]
    grown = runs[-1]["driver_and_scheduler_mib"] - runs[0]["driver_and_scheduler_mib"]
    cpu = max(run["driver_and_scheduler_cpu_ms_a_block"] for run in runs)
    measured = (
        (f"driver and scheduler grow from 1,000 to {most:,} blocks, MiB", f"{grown:.1f}", GROWTH_MIB,
         grown <= GROWTH_MIB),
        ("their CPU time a block, ms", f"{cpu:.2f}", CPU_MS, cpu <= CPU_MS),
        (f"{fleet['workers']} workers at {fleet['seconds_a_block']:g} s a block: share of their time at work",
         f"{fleet['busy_share']:.3f}", BUSY, fleet["busy_share"] >= BUSY),
        ("bytes fetched from workers", str(fleet["bytes_fetched_from_workers"]), 0,
         fleet["bytes_fetched_from_workers"] == 0),
        (f"a run of {journal['marks']:,} blocks finds what is left to do, seconds", f"{journal['resume_seconds']:.1f}",
         RESUME_S, journal["resume_seconds"] <= RESUME_S),
    )  # fmt: skip
    rows = [(what, value, f"{target:g}", met(ok)) for what, value, target, ok in measured]
    return f"{markdown(['', 'measured', 'target', 'met'], rows)}\n\nMeasured on {where(entry)}."


def rounding_table(entries: Sequence[dict[str, Any]]) -> str:
    """What the precision that `auto` took changes on sections that a packaged model never saw."""
    rows = []
    for entry in entries:
        told = entry["figures"]["against_float32"]
        name = entry["benchmark"].removeprefix("packaged-")
        change, share = told["v_rand_change"], told["share_within_one_level"]
        ok = share >= LEVEL_SHARE and told["greatest"] <= GREATEST and abs(change) <= V_RAND
        level = f"{100 * share:.2f} %"
        rows.append((f"`{name}`", told["precision"], level, str(told["greatest"]), f"{change:+.5f}", met(ok)))
    heads = ["model", "precision", "within one grey level", "greatest", "change of V_rand", "met"]
    return f"{markdown(heads, rows)}\n\nMeasured on {where(entries[0])}." if rows else ""
