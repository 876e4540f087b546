"""Generates the tables of the documents from benchmarks/results; needs no torch.

python -m benchmarks.tables
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.component_tables import (
    cropping_table,
    engines_table,
    malloc_table,
    memory_table,
    rounding_table,
    scale_table,
    scheduler_table,
)
from benchmarks.markdown import markdown_table, measured_on, rate
from benchmarks.peer_tables import CASES, gpu_table, limit_table, peers_table, targets_table
from benchmarks.record import read_result

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROOT = Path(__file__).parents[1]
PAGE = _ROOT / "docs" / "networks.md"
BENCHMARKS = _ROOT / "docs" / "benchmarks.md"
PACKAGED = {"fusionnet-isbi2012": "isbi2012", "fusionnet-snemi3d": "snemi3d"}
"""Packaged models, and the workflow that trains each."""
LITERATURE = ("fcn8s", "unet", "fusionnet", "sliding_window")


def networks_table(entry: dict[str, Any] | None) -> str:
    """Sizes, cost and speed of the networks that benchmarks.networks measured."""
    if entry is None:
        return ""
    rows = [
        (
            f"`{row['network']}`" + (f", {row['variant']}" if row["variant"] else ""),
            _millions(row["parameters"]),
            str(row["layers"]),
            *(",".join(map(str, row[key])) for key in ("reach", "stride", "margin", "exact_halo")),
            f"{row['flops_per_voxel'] / 1e3:.0f}",
            *(rate(row["kvoxel_s"][precision]) for precision in ("float32", "bfloat16")),
        )
        for row in sorted(entry["figures"]["networks"], key=lambda row: (row["network"], row["variant"]))
    ]
    heads = ["network", "parameters", "layers", "reach", "stride", "margin", "exact halo", "GFLOP/Mvoxel",
             "kvoxel/s float32", "kvoxel/s bfloat16"]  # fmt: skip
    figures = entry["figures"]
    busy = ", with other work on the machine, so speeds are rough" if figures["busy"] else ""
    note = f"{measured_on(entry)}, {_threads(entry)}, torch {figures['torch']}{busy}."
    return f"{markdown_table(heads, rows)}\n\nMeasured on {note}"


def literature_table(entries: Sequence[dict[str, Any]]) -> str:
    """The networks that benchmarks.literature trained and scored."""
    if not entries:
        return ""
    rows = []
    for entry in entries:
        figures, runs = entry["figures"], entry["figures"]["runs"]
        rows.append(
            (
                f"`{entry['benchmark'].removeprefix('literature-')}`",
                ", ".join(f"{key} {json.dumps(value)}" for key, value in figures["arguments"].items()),
                _millions(runs[0]["parameters"]),
                str(figures["steps"]),
                f"{statistics.mean(run['f1'] for run in runs):.3f}",
                ", ".join(f"{run['f1']:.3f}" for run in runs),
                *(_mean(runs, key) for key in ("average_precision", "v_rand", "v_info")),
                f"{statistics.mean(run['seconds'] for run in runs):.0f}",
                rate(statistics.median(run["predict_kvoxel_s"] for run in runs)),
            )
        )
    heads = ["network", "arguments", "parameters", "steps", "F1", "F1 of each seed", "average precision", "V_rand",
             "V_info", "seconds a training", "predict, kvoxel/s"]  # fmt: skip
    machines = {f"{measured_on(entry)}, {_threads(entry)}" for entry in entries}
    return f"{markdown_table(heads, rows)}\n\nMeasured on {'; '.join(sorted(machines))}."


def packaged_table(entry: dict[str, Any] | None) -> str:
    """Scores of a packaged model on sections that it was not trained on, with one orientation and with eight."""
    if entry is None:
        return ""
    heads = ["views", "V_rand", "V_info", "average precision", "F1 at 0.5", "best F1", "halo", "kvoxel/s"]
    rows = []
    for views, key in (("one", "orientations_one"), ("mean of 8 (`--orientations all`)", "orientations_all")):
        scores = entry["figures"][key]
        cells = (f"{scores[name]:.4f} (cells below {scores[f'{name}_threshold']})" for name in ("v_rand", "v_info"))
        pixels = (f"{scores[name]:.4f}" for name in ("average_precision", "f1", "best_f1"))
        halo = ",".join(map(str, scores["halo"]))
        rows.append((views, *cells, *pixels, halo, rate(scores["predict_kvoxel_s"])))
    return f"{markdown_table(heads, rows)}\n\nMeasured on {measured_on(entry)}."


def pages() -> dict[Path, dict[str, str]]:
    """Tables of every page, by the name in their markers."""
    tables_of = {PAGE: network_tables(), BENCHMARKS: benchmark_tables()}
    for name, workflow in PACKAGED.items():
        table = {"packaged": packaged_table(read_result(f"packaged-{name}"))}
        tables_of[_ROOT / "volseg" / "models" / "weights" / f"{name}.md"] = table
        tables_of[_ROOT / "workflows" / workflow / "README.md"] = table
    return tables_of


def network_tables() -> dict[str, str]:
    """Tables of docs/networks.md, by the name in their markers."""
    literature = [read_result(f"literature-{name}") for name in LITERATURE]
    return {
        "networks": networks_table(read_result("networks")),
        "literature": literature_table([entry for entry in literature if entry is not None]),
    }


def benchmark_tables() -> dict[str, str]:
    """Tables of docs/benchmarks.md, by the name in their markers."""
    peers = [entry for case in CASES if (entry := read_result(f"peers-{case}")) is not None]
    packaged = [entry for name in PACKAGED if (entry := read_result(f"packaged-{name}")) is not None]
    return {
        "peers": peers_table(peers),
        "targets": targets_table(peers),
        "limit": limit_table(read_result("limit")),
        "engines": engines_table(read_result("engines")),
        "cropping": cropping_table(read_result("cropping")),
        "rounding": rounding_table([entry for entry in packaged if "against_float32" in entry["figures"]]),
        "memory": memory_table(read_result("memory")),
        "malloc": malloc_table(read_result("malloc")),
        "scheduler": scheduler_table(read_result("scheduler")),
        "scale": scale_table(read_result("scale")),
        "gpu": gpu_table(read_result("gpu")),
    }


def fill_tables(page: str, tables: dict[str, str]) -> str:
    """Put each table between its markers, `<!-- table: NAME -->` and `<!-- end -->`."""
    for name, table in tables.items():
        begin, end = f"<!-- table: {name} -->", "<!-- end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(page)) != 1:
            raise ValueError(f"the page must have {begin} and {end} once")
        inside = f"\n\n{table}\n\n" if table else "\n"
        before, after = pattern.split(page)
        page = f"{before}{begin}{inside}{end}{after}"
    return page


def write_tables() -> None:
    """Update the tables of all pages."""
    for page, tables in pages().items():
        page.write_text(fill_tables(page.read_text(), tables))


def _mean(runs: Sequence[dict[str, Any]], score: str) -> str:
    """Mean of a score over all seeds; a dash if it was not measured."""
    return f"{statistics.mean(run[score] for run in runs):.3f}" if score in runs[0] else "-"


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.{1 if parameters >= 1e6 else 2}f} M"


def _threads(entry: dict[str, Any]) -> str:
    threads = entry["figures"]["threads"]
    return f"{threads} thread{'s' if threads > 1 else ''}"


if __name__ == "__main__":
    write_tables()
