"""Compares the measured peak memory of a worker with the prediction, for each network of the comparison.

python -m benchmarks.memory [sections.tif]

Each round is `predict --dry-run --calibrate` on a new local worker.
The figures go to benchmarks/results/memory.json, and from there to docs/benchmarks.md.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cases import CASES, SIDE, Case, case_model, make_source
from benchmarks.record import record
from benchmarks.tables import write_tables
from volseg.cluster import NullProgress
from volseg.config import PredictConfig, validate
from volseg.prediction.calibrate import calibrate
from volseg.prediction.prepare import prepare

if TYPE_CHECKING:
    from volseg.blocks import Zyx

ROUNDS = 3
BLOCK: Zyx = (1, SIDE, SIDE)


def measure_peaks(case: Case, raw: Path, folder: Path, rounds: int = ROUNDS, block: Zyx = BLOCK) -> dict[str, Any]:
    """Measured and predicted peak of a worker in MiB, once per round, and the configuration."""
    values = {
        "source": str(raw), "target": str(folder / f"{case.name}.zarr"), "model": str(case_model(case, folder)),
        "precision": case.precision, "block": block, "cluster": "local", "workers": 1,
    }  # fmt: skip
    estimates = [
        asdict(calibrate(*prepare(validate(PredictConfig, values, "predict")), NullProgress())[1])
        for _ in range(rounds)
    ]
    first = estimates[0]
    return {
        "network": case.network,
        "arguments": case.arguments,
        **{name: first[name] for name in ("precision", "halos", "tiles", "slots")},
        **{
            name: [_mib(estimate[f"{name}_peak_bytes"]) for estimate in estimates] for name in ("predicted", "measured")
        },
    }


def _mib(size: object) -> int:
    return int(str(size)) >> 20


def main() -> None:
    """Measure, record, print, and update the tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = name  # no halo from an earlier run
        data = make_source(folder / "raw.zarr", sys.argv[1] if len(sys.argv) > 1 else "")
        networks = [measure_peaks(case, folder / "raw.zarr", folder) for case in CASES]
    figures = {"data": data, "block": BLOCK, "networks": networks}
    sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{record('memory', figures)}\n")
    write_tables()


if __name__ == "__main__":
    main()
