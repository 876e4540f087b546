"""JSON and tables on standard output."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from volseg.errors import redact, redacted
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table


def echo_json(value: Any) -> None:
    """Print a value as JSON, without credentials."""
    click.echo(json.dumps(redacted(value), indent=2))


def echo_repeats(count: int) -> None:
    """Say how many requests to a target's object store were repeated, if any were."""
    if count:
        click.echo(f"{counted(count, 'request')} to the store had to be repeated")


def value_text(value: Any) -> str:
    """Return a value as people type it; control characters are escaped.

    >>> value_text((0, 16, 16)), value_text([[1, 2], [3, 4]]), value_text(("a", "b")), value_text({}), value_text(0.1)
    ('0,16,16', '[[1, 2], [3, 4]]', 'a, b', 'none', '0.1')
    """
    if value is None or value == {}:
        return "none"
    if isinstance(value, list | tuple) and not any(isinstance(item, list | tuple | dict) for item in value):
        return (", " if any(isinstance(item, str) for item in value) else ",").join(map(value_text, value))
    if isinstance(value, float):
        return f"{value:.8g}"
    text = redact(value if isinstance(value, str) else json.dumps(value))
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def bytes_text(size: int) -> str:
    """Bytes in the unit of their size, GB for what takes a while.

    >>> bytes_text(0), bytes_text(999_999), bytes_text(34_359_738_368), bytes_text(2_000_000_000_000_000)
    ('0 kB', '1 MB', '34.4 GB', '2,000 TB')
    """
    value, unit = size / 1e3, "kB"
    for larger in ("MB", "GB", "TB"):
        if float(f"{value:.3g}") >= 1000:
            value, unit = value / 1e3, larger
    return f"{float(f'{value:.3g}'):,g} {unit}"


def plain_table(left: Sequence[str], right: Sequence[str] = (), *, gap: int = 2) -> Table:
    """Return an empty table without lines.

    Args:
        left: headings of the first columns, which are left-aligned.
        right: headings of the columns behind them, which are right-aligned.
        gap: spaces between columns.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for headings, justify in ((left, "left"), (right, "right")):
        for heading in headings:
            table.add_column(heading, no_wrap=True, justify=justify)  # type: ignore[arg-type]  # both are Literals
    return table
