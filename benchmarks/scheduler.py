"""What a block costs apart from its network: 10,000 blocks that take no work, and 10,000 through the identity network.

python -m benchmarks.scheduler
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.record import record
from tests.doubles import copy_block, report
from tests.makers import make_volume
from volseg.cluster import Cluster, Quiet, connect, run_blocks
from volseg.storage.target import create_volume

if TYPE_CHECKING:
    from collections.abc import Callable

    from volseg.pipeline import BlockReport

BLOCKS = 10_000
SHAPE, BLOCK = (100, 160, 160), (1, 16, 16)


def measure(cluster: Cluster, compute: Callable[[int], BlockReport]) -> dict[str, float]:
    """Milliseconds a block, the most futures held, and how much the driver grew."""
    run_blocks(cluster, range(200), compute, lambda *_: None, Quiet())
    driver = psutil.Process()
    before, started = driver.memory_info().rss, time.perf_counter()
    outcome = run_blocks(cluster, range(BLOCKS), compute, lambda *_: None, Quiet())
    assert outcome.done == BLOCKS
    return {
        "blocks": BLOCKS,
        "ms_a_block": round((time.perf_counter() - started) / BLOCKS * 1e3, 3),
        "peak_futures": outcome.peak_in_flight,
        "driver_grew_mib": round((driver.memory_info().rss - before) / 2**20, 1),
    }


def main() -> None:
    """Measure both, and record."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, connect("local", 2) as cluster:
        raw, out = Path(folder, "raw.zarr"), Path(folder, "out.zarr")
        make_volume(raw, SHAPE, chunk=(10, 80, 80))
        create_volume(out, shape=SHAPE, shard=BLOCK, chunk=BLOCK, dtype="uint8", voxel_nm=(30.0, 6.0, 6.0))
        figures["no work"] = measure(cluster, report)
        figures["identity network"] = measure(
            cluster, partial(copy_block, source=str(raw), target=str(out), block=BLOCK)
        )
    sys.stdout.write(f"{figures}\n{record('scheduler', figures)}\n")


if __name__ == "__main__":
    main()
