"""Runs into stores that fail, and writes that land late: equal bytes, and nothing of a run that was replaced."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

import volseg
from tests.object_fakes import ObjectServer, gs_variables, object_server, s3_variables
from tests.prediction import test_object_store as plain
from tests.prediction.test_object_store import content, quick_lease  # noqa: F401 - a fixture
from volseg.storage import read_marks, repeats, target_path
from volseg.testing.factories import make_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.object_fakes import Request

TROUBLES = ("500", "503", "reset", "lost", "half", "stall:0.1")
VARIABLES = {"s3": s3_variables, "gs": gs_variables}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    monkeypatch.setattr(repeats, "_FIRST_PAUSE", 0.01)
    with object_server() as state:
        for variables in VARIABLES.values():
            for name, value in variables(state.url).items():
                monkeypatch.setenv(name, value)
        yield state


def predict(raw: object, target: str | Path, model: Path, **options: Any) -> Any:
    return plain.predict(raw, target, model, roi="0:2,:,:", **options)


class Troubles:
    """Lets some of the requests fail, and counts the failed puts of shards."""

    def __init__(self, share: float) -> None:
        self.share, self.rng, self.shards, self.all = share, random.Random(0), 0, 0

    def __call__(self, request: Request) -> str | None:
        if self.rng.random() >= self.share:
            return None
        trouble = self.rng.choice(TROUBLES)
        self.all += 1
        self.shards += request.method == "PUT" and "/c/" in request.key and not trouble.startswith("stall")
        return trouble


@pytest.mark.parametrize("share", [0.05, pytest.param(0.3, marks=pytest.mark.slow)])
def test_a_store_of_whose_requests_some_fail_gets_equal_bytes_and_the_repeats_are_counted(
    share: float, raw: Path, small_model: Path, tmp_path: Path, server: ObjectServer
) -> None:
    predict(raw, tmp_path / "m.zarr", small_model)
    server.trouble = troubles = Troubles(share)
    summary = predict(raw, "s3://bucket/m.zarr", small_model)
    counted = troubles.shards
    server.trouble = lambda request: None
    assert summary.failed == {}
    assert content("s3://bucket/m.zarr") == content(tmp_path / "m.zarr")
    assert troubles.all > 0
    assert counted <= summary.repeats <= troubles.all


@pytest.mark.parametrize("scheme", ["s3", pytest.param("gs", marks=pytest.mark.slow)])
def test_no_write_of_a_run_that_was_replaced_lands_late(
    scheme: str, raw: Path, small_model: Path, tmp_path: Path, server: ObjectServer
) -> None:
    """Every put of shards, marks, lease and `zarr.json` of the old run lands once more: the new map stays as it is."""
    target = f"{scheme}://bucket/maps/m.zarr"
    predict(raw, target, make_model(tmp_path / "other.safetensors", seed=7))
    old = [write.request for write in server.log if write.request.method == "PUT"]
    predict(raw, target, small_model, overwrite=True)
    predict(raw, tmp_path / "m.zarr", small_model)
    marks = list(read_marks(target_path(target) / "0" / ".volseg"))
    answers = {request.key: server.land(request, late=1.0).status for request in old if "/c/" in request.key}
    assert answers
    assert set(answers.values()) == {412}
    for request in old:
        if ".volseg/journal" in request.key or request.key.endswith(("lease.json", "m.zarr/zarr.json")):
            server.land(request, late=1.0)
    assert content(target) == content(tmp_path / "m.zarr")
    assert list(read_marks(target_path(target) / "0" / ".volseg")) == marks
    assert predict(raw, target, small_model, resume=True).done == 0
    assert volseg.verify(target, cluster="serial", seams=False).sound


def test_a_map_in_googles_store_has_the_bytes_of_one_on_a_disk(
    raw: Path, small_model: Path, tmp_path: Path, server: ObjectServer
) -> None:
    source = "gs://bucket/raw.zarr"
    volseg.convert(str(raw), source, cluster="serial")
    predict(raw, tmp_path / "m.zarr", small_model)
    summary = predict(source, "gs://bucket/m.zarr", small_model)
    assert (summary.failed, summary.repeats) == ({}, 0)
    assert content("gs://bucket/m.zarr") == content(tmp_path / "m.zarr")
