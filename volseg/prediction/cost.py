"""What a run costs: before it from a calibration, during and after it from what its starts logged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from volseg.prediction.dry_run import shards_of
from volseg.storage import ObjectPath, journal_folder, read_record, read_usage, total_usage

if TYPE_CHECKING:
    from volseg.config import Prices
    from volseg.prediction.calibrate import Calibration
    from volseg.prediction.dry_run import RunEstimate
    from volseg.storage import KindUsage, TargetPath


@dataclass(frozen=True)
class Money:
    """An amount in a currency.

    Attributes:
        currency: as the price table names it.
        amount: lower bound, middle, upper bound; equal for what is known.
        month: of storing the map.
    """

    currency: str
    amount: tuple[float, float, float]
    month: float


@dataclass(frozen=True)
class RunCost:
    """What the starts of a run took so far.

    Attributes:
        starts: number.
        seconds: of all starts, each from its connection to the workers on.
        kinds: of the workers; the empty name is of those that did no block.
        writes: requests that wrote shards, about; 0 on a file system.
        money: None without prices.
    """

    starts: int
    seconds: float
    kinds: dict[str, KindUsage]
    writes: int
    money: Money | None


def run_cost(path: TargetPath, prices: Prices | None) -> RunCost:
    """What a run took so far; it may be running.

    Args:
        path: of its target.
        prices: a price table, if money is asked for.

    Raises:
        TargetError: there is no run.
        ConfigError: a kind of worker has no price.
    """
    record = read_record(path)
    starts = read_usage(journal_folder(path), record.digest)
    kinds = total_usage(starts)
    writes = 0
    if isinstance(path, ObjectPath):
        blocks = sum(usage.blocks for usage in kinds.values())
        writes = round(blocks * shards_of(record.grid.block, record.settings.shard, len(record.levels)))
    money = None
    if prices is not None:
        amount = sum(usage.held_seconds / 3600 * _price(prices, kind, kinds) for kind, usage in kinds.items())
        amount += writes / 1000 * prices.thousand_writes
        stored = sum(usage.bytes for usage in kinds.values()) / 1e9 * prices.gigabyte_month
        money = Money(prices.currency, (amount, amount, amount), stored)
    return RunCost(len(starts), sum(start.seconds for start in starts), kinds, writes, money)


def planned_money(prices: Prices, estimate: RunEstimate, calibration: Calibration) -> Money:
    """What a run will cost.

    Raises:
        ConfigError: the kind of worker has no price.
    """
    hour = prices.of_worker(calibration.kind)
    requests = estimate.requests_to_write / 1000 * prices.thousand_writes
    requests += estimate.requests_to_read / 1000 * prices.thousand_reads
    low, middle, high = (hours * hour + requests for hours in calibration.worker_hours)
    return Money(prices.currency, (low, middle, high), calibration.bytes_stored / 1e9 * prices.gigabyte_month)


def _price(prices: Prices, kind: str, kinds: dict[str, KindUsage]) -> float:
    """Of an hour of a worker; one that did no block counts as the dearest of the others."""
    if kind:
        return prices.of_worker(kind)
    return max((prices.of_worker(other) for other in kinds if other), default=max(prices.worker_hour.values()))
