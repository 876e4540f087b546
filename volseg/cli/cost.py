"""Costs in words."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

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
    yield f"    {stored / 1e9:.3g} GB stored{requests}"
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
    >>> money_text(Money("EUR", (8.0, 10.0, 12.0), 0.5)), money_text(Money("USD", (0.25, 0.25, 0.25), 0.0))
    ('10.00 EUR (8.00 to 12.00), then 0.50 EUR a month for the map', '0.25 USD')
    """
    low, middle, high = (f"{value:,.2f}" for value in money.amount)
    between = f" ({low} to {high})" if low != high else ""
    month = f", then {money.month:,.2f} {money.currency} a month for the map" if money.month else ""
    return f"{middle} {money.currency}{between}{month}"
