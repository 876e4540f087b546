"""Shared fixtures: volumes, models and clusters."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

# A serial run uses all cores, as do parallel test jobs: threads that spin while they wait make such runs three times
# slower. OpenMP reads this when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from volseg.cluster import connect, policy
from volseg.cluster.dask_executor import DaskExecutor
from volseg.testing.factories import make_model, make_volume

if TYPE_CHECKING:
    from collections.abc import Iterator

os.environ.setdefault("MPLBACKEND", "Agg")
# A cache of its own: measurements of other runs must not be reused.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="volseg-cache-")
# Reproducible examples, and no failures on a busy machine.
settings.register_profile("volseg", deadline=None, derandomize=True)
settings.load_profile("volseg")


def pytest_collection_finish() -> None:
    """Exclude imported objects from garbage collection, which each run calls twice."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed blocks are tried again at once."""
    monkeypatch.setattr(policy, "FIRST_BACKOFF", 0.0)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A small volume of blobs, 6 x 70 x 90; y and x are not multiples of any stride."""
    return make_volume(tmp_path / "raw.zarr", (6, 70, 90))


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FusionNet of width 4 and depth 2 with random weights, trained for 30 x 6 x 6 nm."""
    return make_model(tmp_path_factory.mktemp("models") / "small.safetensors")


@pytest.fixture(scope="session")
def two_workers() -> Iterator[DaskExecutor]:
    """A local cluster of two workers, shared by tests, which must not change it."""
    with connect("local", 2) as executor:
        assert isinstance(executor, DaskExecutor)
        yield executor


@pytest.fixture
def shared_data() -> Path:
    """Folder of real EM volumes; skips the test if there is none."""
    folder = Path(os.environ.get("VOLSEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no EM data in {folder}; set VOLSEG_DATA")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded random generator."""
    return np.random.default_rng(0)
