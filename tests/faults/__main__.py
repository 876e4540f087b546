"""`make test-faults`: the campaigns in their long form, and one table of what they counted."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from importlib import import_module
from pathlib import Path

ROUNDS = {
    "drivers": 100,
    "ends": 40,
    "kills": 20,
    "leases": 200,
    "injected": 60,
    "corruptions": 300,
    "fuzz": 100_000,
    "seam_calls": 24,
}
"""Modules of this folder with a function `campaign(seed, rounds, folder)`, and their rounds; `fuzz` ends by time."""


def run() -> int:
    """Run the campaigns; 1 if a law was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", choices=ROUNDS, action="append", help="run these campaigns only")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each round adds one")
    parser.add_argument("--rounds", type=int, help="of each campaign, instead of its own number")
    chosen = parser.parse_args()
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="volseg-cache-")
    warnings.simplefilter("ignore")
    done = []
    for name in chosen.only or ROUNDS:
        with tempfile.TemporaryDirectory(prefix="volseg-faults-") as folder:
            campaign = import_module(f"tests.faults.{name}").campaign
            done.append(campaign(chosen.seed, chosen.rounds or ROUNDS[name], Path(folder)))
        sys.stdout.write(f"{name}: {len(done[-1].failures)} failed, {done[-1].seconds:.0f} s\n")
        sys.stdout.flush()
    sys.stdout.write("\n".join(["", *(line for campaign in done for line in campaign.lines()), ""]))
    return int(any(campaign.failures for campaign in done))


if __name__ == "__main__":
    sys.exit(run())
