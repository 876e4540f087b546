"""Costs in words."""

from __future__ import annotations

from datetime import timedelta
from math import floor, log10
from typing import TYPE_CHECKING

from volseg.cli.output import bytes_text
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volseg.prediction.cost import Money, RunCost
    from volseg.storage import KindUsage


def cost_lines(cost: RunCost) -> Iterator[str]:
    """What the starts of a run took: a line for each kind of worker, then bytes, requests and money."""
    took = timedelta(seconds=round(cost.seconds))
    yield f"  cost        {counted(cost.starts, 'start')}, {took} with workers"
    for kind, usage in sorted(cost.kinds.items()):
        yield f"    {hours(usage.held_seconds / 3600)} {_kind_text(kind, usage)}"
    stored = sum(usage.bytes for usage in cost.kinds.values())
    requests = f", about {counted(cost.writes, 'request')} to write them" if cost.writes else ""
    yield f"    {bytes_text(stored)} stored{requests}"
    if cost.money is not None:
        yield f"    {money_text(cost.money)}"


def _kind_text(kind: str, usage: KindUsage) -> str:
    """How a kind of worker spent its time."""
    if not kind:
        return "of workers that did no block"
    held = max(usage.held_seconds, 1e-9)
    waste = f", {usage.wasted_seconds / held:.1%} in work that was lost" if usage.wasted_seconds else ""
    failures = f", {counted(usage.failures, 'attempt')} failed" if usage.failures else ""
    return f"of {kind}: {counted(usage.blocks, 'block')}, {usage.block_seconds / held:.0%} in blocks{waste}{failures}"


def hours(value: float) -> str:
    """Worker hours.

    >>> hours(0.0123), hours(1.0), hours(12345.6)
    ('0.0123 worker hours', '1 worker hour', '12,346 worker hours')
    """
    text = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{text} worker hour{'' if text == '1' else 's'}"


def money_text(money: Money) -> str:
    """An amount in words.

    >>> from volseg.prediction.cost import Money
    >>> money_text(Money("EUR", (8.0, 10.0, 12.0), 0.5)), money_text(Money("USD", (0.0025, 0.0025, 0.0025), 0.0))
    ('10.00 EUR (8.00 to 12.00), then 0.50 EUR a month for the map', '0.0025 USD')
    """
    low, middle, high = map(_amount, money.amount)
    between = f" ({low} to {high})" if low != high else ""
    month = f", then {_amount(money.month)} {money.currency} a month for the map" if money.month else ""
    return f"{middle} {money.currency}{between}{month}"


def _amount(value: float) -> str:
    """With two decimals; a small one with two digits.

    >>> _amount(1234.5), _amount(0.1), _amount(0.0000384), _amount(0.0)
    ('1,234.50', '0.10', '0.000038', '0.00')
    """
    decimals = 2 if value >= 0.1 or value <= 0 else min(12, 1 - floor(log10(value)))
    return f"{value:,.{decimals}f}"
