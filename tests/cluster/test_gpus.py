"""GPUs are found without torch, and each worker process sees one."""

from __future__ import annotations

import os

import pytest

from volseg.cluster import connect, visible_gpus
from volseg.cluster.dask_cluster import default_workers


@pytest.mark.parametrize(
    ("stated", "found"),
    [("0,1", ("0", "1")), ("GPU-8f1a", ("GPU-8f1a",)), ("", ()), ("-1", ()), (" 2 , 3 ", ("2", "3"))],
)
def test_what_the_environment_states_counts(monkeypatch: pytest.MonkeyPatch, stated: str, found: tuple) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", stated)
    assert visible_gpus("auto") == found
    assert visible_gpus("cpu") == ()


def test_a_machine_without_a_driver_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    assert visible_gpus("auto") == ()


def test_a_local_cluster_has_one_worker_a_gpu_and_each_sees_its_own() -> None:
    assert default_workers(("3", "5", "7")) == 3
    with connect("local", None, ("3", "5")) as executor:
        seen = executor.run_on_all(_sees)
    assert sorted(seen) == ["3", "5"]


def _sees() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")
