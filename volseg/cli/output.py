"""An evaluation as a person reads it: a bar while it runs, then tables."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from volseg.evaluation.metrics import InstanceScores

if TYPE_CHECKING:
    from volseg.evaluation.evaluate import MapScores
    from volseg.evaluation.metrics import SegmentationScores


def print_scores(scores: MapScores | InstanceScores) -> None:
    """Print tables for people."""
    console = Console(highlight=False)
    if isinstance(scores, InstanceScores):
        console.print(_facts("cells", asdict(scores)))
        return
    console.print(_facts("pixels", asdict(scores.pixels)))
    if scores.segmentation is not None:
        for table in (_over_thresholds(scores.segmentation), _best(scores.segmentation)):
            console.print()
            console.print(table)


def as_plain(scores: MapScores | InstanceScores) -> dict[str, Any]:
    """Scores as JSON takes them: those of pixels by their names, those of a map's cells under `segmentation`."""
    if isinstance(scores, InstanceScores):
        return asdict(scores)
    cells = {} if scores.segmentation is None else {"segmentation": asdict(scores.segmentation)}
    return {**asdict(scores.pixels), **cells}


def _facts(heading: str, values: dict[str, float]) -> Table:
    table = _table()
    table.add_column(heading, no_wrap=True)
    table.add_column("", justify="right")
    for name, value in values.items():
        table.add_row(name.replace("_", " "), f"{value:.4f}")
    return table


def _over_thresholds(scores: SegmentationScores) -> Table:
    table = _table()
    for heading in ("cells at", "V_rand", "V_info"):
        table.add_column(heading, justify="left" if heading == "cells at" else "right", no_wrap=True)
    table.add_column("")
    bests = ((scores.v_rand_threshold, "V_rand"), (scores.v_info_threshold, "V_info"))
    for threshold, rand, info in zip(scores.thresholds, scores.v_rand, scores.v_info, strict=True):
        best = [name for at, name in bests if at == threshold]
        mark = f"<- best {' and '.join(best)}" if best else ""
        table.add_row(f"{threshold:.1f}", f"{rand:.4f}", f"{info:.4f}", mark, style="bold" if best else None)
    return table


def _best(scores: SegmentationScores) -> Table:
    sections = f"best of {scores.sections} section{'' if scores.sections == 1 else 's'}"
    table = _table()
    for heading in (sections, "score", "split", "merge", "threshold"):
        table.add_column(heading, justify="left" if heading == sections else "right", no_wrap=True)
    for name, values in (
        ("V_rand", (scores.best_v_rand, scores.rand_split, scores.rand_merge)),
        ("V_info", (scores.best_v_info, scores.info_split, scores.info_merge)),
    ):
        at = scores.v_rand_threshold if name == "V_rand" else scores.v_info_threshold
        table.add_row(name, *(f"{value:.4f}" for value in values), f"{at:.1f}")
    return table


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))


def echo_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2))
