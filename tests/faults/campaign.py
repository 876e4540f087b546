"""A campaign: rounds of random faults from one seed, counted, with the seeds of those that broke a law."""

from __future__ import annotations

import random
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass
class Campaign:
    """Result of a campaign.

    Attributes:
        name: of the campaign.
        counts: of what happened.
        failures: seed of a round, and what was wrong.
        seconds: that it took.
    """

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """Counts and failures, as a table."""
        head = f"{self.name:<12}{self.seconds:8.0f} s  {len(self.failures)} failed"
        counts = [f"{'':<12}{count:8}  {name}" for name, count in sorted(self.counts.items())]
        failed = [f"{'':<12}--only {self.name} --seed {seed} --rounds 1: {what}" for seed, what in self.failures]
        return [head, *counts, *failed]


def run_campaign(
    name: str,
    seed: int,
    rounds: int,
    folder: Path,
    play: Callable[[random.Random, Path], Counter[str]],
    seconds: float = float("inf"),
) -> Campaign:
    """Play rounds with the seeds `seed`, `seed + 1`, ..

    Args:
        name: of the campaign.
        seed: of the first round.
        rounds: number of rounds.
        folder: receives a folder for each round.
        play: one round: returns counts, and raises AssertionError where a law is broken.
        seconds: after which no further round begins.
    """
    campaign, started = Campaign(name), time.monotonic()
    for number in range(seed, seed + rounds):
        if time.monotonic() - started > seconds:
            break
        place = folder / f"{name}-{number}"
        place.mkdir(parents=True)
        began = time.monotonic()
        try:
            campaign.counts += play(random.Random(number), place)
        except Exception as error:  # a law that is broken is counted, and the campaign goes on
            where = traceback.extract_tb(error.__traceback__)[-1]
            sys.stderr.write(f"{name} {number}: {error}\n")
            campaign.failures.append((number, f"{where.name}:{where.lineno}: {type(error).__name__}: {error}"))
        sys.stderr.write(f"{name} {number}: {time.monotonic() - began:.1f} s\n")
    campaign.seconds = time.monotonic() - started
    return campaign
