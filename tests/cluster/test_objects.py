"""Dask clients and cluster objects as `cluster=`: used, and left to whoever made them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from distributed import Client, LocalCluster

import volseg
from volseg.cluster import check_cluster, connect
from volseg.errors import ConfigError
from volseg.testing.doubles import NoteRecorder
from volseg.testing.factories import read_volume

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.cluster.dask_executor import DaskExecutor

OPTIONS: Any = {"block": (2, 32, 32), "halo": (0, 8, 8), "tile": (1, 32, 32), "precision": "float32"}


@pytest.mark.slow
def test_a_client_serves_every_function_and_stays_open(
    two_workers: DaskExecutor, raw: Path, small_model: Path, tmp_path: Path
) -> None:
    client, model = two_workers.client, str(small_model)
    volseg.predict(str(raw), str(tmp_path / "serial.zarr"), model=model, cluster="serial", **OPTIONS)
    summary = volseg.predict(str(raw), str(tmp_path / "map.zarr"), model=model, cluster=client, **OPTIONS)
    assert (summary.done, summary.failed) == (27, {})
    assert not {"this process"} & {*summary.workers}
    assert (read_volume(tmp_path / "map.zarr") == read_volume(tmp_path / "serial.zarr")).all()
    report = volseg.verify(str(tmp_path / "map.zarr"), cluster=client)
    assert report.sound
    copied = volseg.convert(str(raw), str(tmp_path / "copy.zarr"), cluster=client, levels=0)
    assert copied.complete
    assert volseg.pyramid(str(tmp_path / "copy.zarr"), levels=1, cluster=client).complete
    assert client.status == "running"


def test_a_cluster_object_without_slots_serves_with_its_threads_and_says_so() -> None:
    notes = NoteRecorder()
    with LocalCluster(n_workers=1, threads_per_worker=3, processes=False, dashboard_address=":0") as cluster:
        with connect(cluster, None, note=notes.note) as executor:
            assert (executor.slots, list(executor.map(abs, [-1, 2]))) == (3, [1, 2])
        with Client(cluster) as client:
            assert client.submit(abs, -3).result() == 3
    assert len(notes.lines) == 1
    assert "as many blocks at once as it has threads, 3 blocks at most" in notes.lines[0]


def test_what_is_no_cluster_is_refused() -> None:
    with pytest.raises(ConfigError, match="cluster 7 is neither a name nor an address, nor a Dask Client"):
        check_cluster(7)
    with pytest.raises(ConfigError, match="--workers 2 needs --cluster local or a batch system"):
        check_cluster("serial", 2)
