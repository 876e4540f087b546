"""Figures in words and tables of Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def rate(kvoxel_s: float) -> str:
    """A rate to about three digits, and never in powers of ten."""
    return f"{kvoxel_s:.{0 if kvoxel_s >= 100 else 1 if kvoxel_s >= 10 else 2}f}"


def where(entry: dict[str, Any]) -> str:
    """When and on what a benchmark ran."""
    machine = entry["machine"]
    return f"{entry['date'][:10]} on {machine['processor']}, {machine['cores']} cores"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; columns in which every cell is a number stand to the right."""
    numbers = [all(re.fullmatch(r"[\d.]+( M)?", row[at]) for row in rows) for at in range(len(heads))]
    lines = [heads, ["---:" if number else "---" for number in numbers], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
