"""A price table: what worker hours, requests and stored bytes cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from volseg.config.base import FrozenModel
from volseg.config.toml import read_toml
from volseg.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Prices(FrozenModel):
    """Prices in one currency.

    >>> prices = Prices(worker_hour={"cpu": 0.2, "H100": 4.0, "H100 NVL": 3.0})
    >>> prices.of_worker("NVIDIA H100 80GB HBM3, float16"), prices.of_worker("NVIDIA H100 NVL, float16")
    (4.0, 3.0)
    """

    currency: str = Field(default="USD", min_length=1, max_length=12)
    worker_hour: dict[str, Price] = Field(min_length=1)
    """Of a worker, by a part of its kind's name, such as H100 or cpu."""
    thousand_writes: Price = 0.0
    """Of a thousand requests that write an object."""
    thousand_reads: Price = 0.0
    """Of a thousand requests that read an object or a part of one."""
    gigabyte_month: Price = 0.0
    """Of 10^9 bytes that are stored for a month."""

    def of_worker(self, kind: str) -> float:
        """Price of an hour of a worker; the longest name counts that its kind contains.

        Raises:
            ConfigError: there is none.
        """
        names = [name for name in self.worker_hour if name.lower() in kind.lower()]
        if not names:
            raise ConfigError(
                f"the price table has no worker_hour for {kind!r}, only for {', '.join(self.worker_hour)}; add a line "
                "whose name is a part of that"
            )
        return self.worker_hour[max(names, key=len)]


def read_prices(path: str | Path) -> Prices:
    """Read a price table (TOML).

    Raises:
        ConfigError: it cannot be read, or a key or value is wrong.
    """
    return read_toml(str(path), Prices, [], "price table")
