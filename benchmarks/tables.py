"""The tables of documents, made from benchmarks/results; needs no torch.

python -m benchmarks.tables
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.comparison import CASES, gpu_table, limit_table, peers_table, targets_table
from benchmarks.markdown import markdown, rate, where
from benchmarks.parts import cropping_table, engines_table, memory_table, rounding_table, scheduler_table
from benchmarks.record import results

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROOT = Path(__file__).parents[1]
PAGE = _ROOT / "docs" / "networks.md"
BENCHMARKS = _ROOT / "docs" / "benchmarks.md"
PACKAGED = {"fusionnet-isbi2012": "isbi2012", "fusionnet-snemi3d": "snemi3d"}
"""The packaged models, and the workflow that made each."""
COMPARED = ("fcn8s", "unet", "fusionnet", "sliding_window")


def networks_table(entry: dict[str, Any] | None) -> str:
    """Every network that benchmarks.networks measured, in figures."""
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
    note = f"{where(entry)}, {_threads(entry)}, torch {figures['torch']}{busy}."
    return f"{markdown(heads, rows)}\n\nMeasured on {note}"


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
                *(_mean_of(runs, key) for key in ("average_precision", "v_rand", "v_info")),
                f"{statistics.mean(run['seconds'] for run in runs):.0f}",
                rate(statistics.median(run["predict_kvoxel_s"] for run in runs)),
            )
        )
    heads = ["network", "arguments", "parameters", "steps", "F1", "F1 of each seed", "average precision", "V_rand",
             "V_info", "seconds a training", "predict, kvoxel/s"]  # fmt: skip
    places = {f"{where(entry)}, {_threads(entry)}" for entry in entries}
    return f"{markdown(heads, rows)}\n\nMeasured on {'; '.join(sorted(places))}."


def packaged_table(entry: dict[str, Any] | None) -> str:
    """What a packaged model reached on the sections that it never saw, with one view of each and with eight."""
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
    return f"{markdown(heads, rows)}\n\nMeasured on {where(entry)}."


def pages() -> dict[Path, dict[str, str]]:
    """Every page with tables, and these by the names in their markers."""
    made = {PAGE: tables(), BENCHMARKS: comparison_tables()}
    for name, workflow in PACKAGED.items():
        table = {"packaged": packaged_table(results(f"packaged-{name}"))}
        made[_ROOT / "volseg" / "models" / "weights" / f"{name}.md"] = table
        made[_ROOT / "workflows" / workflow / "README.md"] = table
    return made


def tables() -> dict[str, str]:
    """Each table of the networks' page, by the name in its marker."""
    compared = [results(f"literature-{name}") for name in COMPARED]
    return {
        "networks": networks_table(results("networks")),
        "literature": literature_table([entry for entry in compared if entry is not None]),
    }


def comparison_tables() -> dict[str, str]:
    """Each table of the benchmarks' page, by the name in its marker."""
    compared = [entry for case in CASES if (entry := results(f"peers-{case}")) is not None]
    packaged = [results(f"packaged-{name}") for name in PACKAGED]
    return {
        "peers": peers_table(compared),
        "targets": targets_table(compared),
        "limit": limit_table(results("limit")),
        "engines": engines_table(results("engines")),
        "cropping": cropping_table(results("cropping")),
        "rounding": rounding_table([e for e in packaged if e is not None and "against_float32" in e["figures"]]),
        "memory": memory_table(results("memory")),
        "scheduler": scheduler_table(results("scheduler")),
        "gpu": gpu_table(results("gpu")),
    }


def filled(page: str, made: dict[str, str]) -> str:
    """The page with each table between its markers, `<!-- table: NAME -->` and `<!-- end -->`."""
    for name, table in made.items():
        begin, end = f"<!-- table: {name} -->", "<!-- end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(page)) != 1:
            raise ValueError(f"the page must have {begin} and {end} once")
        inside = f"\n\n{table}\n\n" if table else "\n"
        before, after = pattern.split(page)
        page = f"{before}{begin}{inside}{end}{after}"
    return page


def write_tables() -> None:
    """Make all pages' tables anew."""
    for page, made in pages().items():
        page.write_text(filled(page.read_text(), made))


def _mean_of(runs: Sequence[dict[str, Any]], score: str) -> str:
    """Of all seeds; a dash where it was not taken."""
    return f"{statistics.mean(run[score] for run in runs):.3f}" if score in runs[0] else "-"


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.{1 if parameters >= 1e6 else 2}f} M"


def _threads(entry: dict[str, Any]) -> str:
    threads = entry["figures"]["threads"]
    return f"{threads} thread{'s' if threads > 1 else ''}"


if __name__ == "__main__":
    write_tables()
