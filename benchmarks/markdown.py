"""Numbers and tables in Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def rate(kvoxel_s: float) -> str:
    """Format a rate with about three digits, without an exponent."""
    return f"{kvoxel_s:.{0 if kvoxel_s >= 100 else 1 if kvoxel_s >= 10 else 2}f}"


def measured_on(entry: dict[str, Any]) -> str:
    """Date and machine of a benchmark."""
    machine = entry["machine"]
    return f"{entry['date'][:10]} on {machine['processor']}, {machine['cores']} cores"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table; columns of numbers are right-aligned."""
    numbers = [all(re.fullmatch(r"[\d.]+( M)?", row[column]) for row in rows) for column in range(len(heads))]
    lines = [heads, ["---:" if number else "---" for number in numbers], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
