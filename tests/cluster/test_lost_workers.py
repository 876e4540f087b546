"""A local cluster whose nannies have given up."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from volseg.cluster import SLOTS, dask_cluster
from volseg.cluster.dask_cluster import local_cluster

if TYPE_CHECKING:
    import pytest


def test_a_worker_whose_nanny_gave_up_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "_RESTART_LOST_SECONDS", 1.0)
    with local_cluster(1, ()) as executor:
        (before,) = executor.run_on_all(os.getpid)
        cluster: Any = executor.client.cluster
        cluster.sync(cluster.workers[0].close)
        until = time.monotonic() + 100
        while not executor.has_workers() and time.monotonic() < until:
            time.sleep(0.1)
        (after,) = executor.run_on_all(os.getpid)
        assert after != before
        assert executor.slots == SLOTS
