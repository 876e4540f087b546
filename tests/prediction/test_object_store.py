"""A run into an object store: the bytes of a local one, also after it was interrupted, and one owner at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pytest

import volseg
from volseg.errors import TargetError
from volseg.prediction.status import run_status
from volseg.storage import ObjectPath, read_marks, read_record, target_path
from volseg.storage import lease as leases
from volseg.storage.object_client import reading_client, writing_client
from volseg.storage.target_store import target_store
from volseg.testing.factories import make_volume
from volseg.testing.object_servers import has_moto, moto_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS: dict[str, Any] = {
    "block": (2, 32, 32), "shard": (2, 32, 32), "chunk": (2, 16, 16), "halo": (0, 8, 8), "tile": (1, 32, 32),
    "precision": "float32", "device": "cpu", "levels": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick_lease(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(leases, "TIMES", leases.LeaseTimes(duration=1.0, beat=0.05, write=0.3))
    monkeypatch.setattr(leases, "_MARGIN", 0.05)
    yield
    for cached in (reading_client, writing_client, target_store):
        cached.cache_clear()


@pytest.fixture
def memory() -> str:
    return f"memory://{uuid4().hex}/maps/m.zarr"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    if not has_moto():
        pytest.skip("no moto_server; pip install 'moto[s3,server]' into an environment of its own, and set VOLSEG_MOTO")
    with moto_server() as url:
        yield url


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a new bucket."""
    from urllib.request import Request, urlopen

    name = f"bucket-{uuid4().hex[:8]}"
    urlopen(Request(f"{s3_server}/{name}", method="PUT")).close()
    for key, value in {"AWS_ENDPOINT_URL": s3_server, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "swordfish",
                       "AWS_REGION": "us-east-1"}.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    return f"s3://{name}"


def content(target: str | Path) -> dict[str, bytes]:
    """The shards and the metadata of the levels of a map, by their key; the run's record is another each time."""
    place = target_path(str(target))
    if isinstance(place, ObjectPath):
        found = {entry.key[len(place.key) + 1 :]: entry.key for entry in place.store.below(place.key)}
        files = {name: (place / name).read_bytes() for name in found}
    else:
        files = {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    return {name: stored for name, stored in files.items() if ".volseg" not in name and name != "zarr.json"}


def predict(raw: object, target: str | Path, model: Path, **options: Any) -> Any:
    values = {**SETTINGS, "cluster": "serial", **options}
    return volseg.predict(str(raw), str(target), model=str(model), **values)


def test_a_map_in_a_store_has_the_bytes_of_one_on_a_disk(
    raw: Path, small_model: Path, tmp_path: Path, memory: str
) -> None:
    predict(raw, tmp_path / "m.zarr", small_model)
    summary = predict(raw, memory, small_model)
    assert summary.failed == {}
    assert content(memory) == content(tmp_path / "m.zarr")
    status = run_status(target_path(memory))
    assert (status.state, status.done, status.left) == ("complete", status.blocks, 0)


def test_a_run_that_was_interrupted_is_finished_and_none_begins_where_one_is(
    raw: Path, small_model: Path, tmp_path: Path, memory: str
) -> None:
    predict(raw, tmp_path / "m.zarr", small_model)
    place = target_path(memory)
    predict(raw, memory, small_model, resume=True)  # of nothing: it begins
    assert isinstance(place, ObjectPath)
    marked = {mark.block for mark in read_marks(place / "0" / ".volseg")}
    segments = list((place / "0" / ".volseg").glob("journal-*.marks"))  # several, if the run took seconds
    assert segments
    for segment in segments:
        segment.unlink()
    lost = next(key for key in content(memory) if key.startswith("0/c/"))
    (place / lost).unlink()
    with pytest.raises(TargetError, match="exists already; give --resume"):
        predict(raw, memory, small_model)
    again = predict(raw, memory, small_model, resume=True)
    assert again.done == again.blocks
    assert {mark.block for mark in read_marks(place / "0" / ".volseg")} == marked
    assert content(memory) == content(tmp_path / "m.zarr")
    assert predict(raw, memory, small_model, resume=True).done == 0


def test_a_creation_that_was_killed_keeps_no_run_out_and_other_content_does(
    raw: Path, small_model: Path, memory: str
) -> None:
    place = target_path(memory)
    (place / "0" / ".volseg" / "conditions-1").write_bytes(b"1")
    assert predict(raw, memory, small_model).failed == {}
    other = target_path(f"{memory}-other")
    (other / "image.tif").write_bytes(b"1")
    with pytest.raises(TargetError, match="holds other objects"):
        predict(raw, str(other), small_model)
    with pytest.raises(TargetError, match="overlap; choose a place outside the source"):
        predict(f"{memory}-2/raw.zarr", f"{memory}-2", small_model)


def test_overwriting_leaves_nothing_of_the_old_map(raw: Path, small_model: Path, tmp_path: Path, memory: str) -> None:
    predict(raw, memory, small_model, levels=3)
    before = read_record(target_path(memory)).digest
    predict(raw, tmp_path / "m.zarr", small_model, roi="0:2,:,:")
    predict(raw, memory, small_model, roi="0:2,:,:", overwrite=True)
    assert content(memory) == content(tmp_path / "m.zarr")
    assert read_record(target_path(memory)).digest != before


@pytest.mark.s3
@pytest.mark.slow
def test_a_map_in_s3_has_the_bytes_of_one_on_a_disk_from_two_workers(
    raw: Path, small_model: Path, tmp_path: Path, bucket: str
) -> None:
    predict(raw, tmp_path / "m.zarr", small_model)
    summary = predict(raw, f"{bucket}/a/m.zarr", small_model, cluster="local", workers=2)
    assert (summary.failed, summary.done) == ({}, summary.blocks)
    assert content(f"{bucket}/a/m.zarr") == content(tmp_path / "m.zarr")
    for name, stored in content(f"{bucket}/a/m.zarr").items():
        assert b"swordfish" not in stored, name
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(
        read_record(target_path(f"{bucket}/a/m.zarr")).to_attributes()
    )


def test_a_verification_finds_a_shard_that_was_changed_in_a_store(raw: Path, small_model: Path, memory: str) -> None:
    predict(raw, memory, small_model)
    sound = volseg.verify(memory, cluster="serial", seams=False)
    assert (sound.sound, sound.complete, dict(sound.warnings)) == (True, True, {})
    shard = target_path(memory) / "0/c/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    damaged = volseg.verify(memory, cluster="serial", seams=False)
    assert list(damaged.damaged) == ["digest"]
    with pytest.raises(TargetError, match="--repair of memory://.* is for paths only"):
        volseg.verify(memory, cluster="serial", repair=True)


@pytest.mark.s3
def test_a_volume_in_s3_is_read_and_its_map_scored_and_verified_there(
    raw: Path, small_model: Path, tmp_path: Path, bucket: str
) -> None:
    source = target_path(f"{bucket}/raw.zarr")
    for path in raw.rglob("*"):
        if path.is_file():
            (source / str(path.relative_to(raw))).write_bytes(path.read_bytes())
    predict(raw, tmp_path / "m.zarr", small_model)
    predict(source, f"{bucket}/m.zarr", small_model)
    assert content(f"{bucket}/m.zarr") == content(tmp_path / "m.zarr")
    assert volseg.verify(f"{bucket}/m.zarr", cluster="serial", seams=False).sound
    truth = make_volume(tmp_path / "truth.zarr", (6, 70, 90), voxels=np.indices((6, 70, 90)).sum(0).astype("uint8") % 2)
    maps = (f"{bucket}/m.zarr", str(tmp_path / "m.zarr"))
    scores = [volseg.evaluate(place, str(truth), pixels_only=True) for place in maps]
    assert repr(scores[0]).replace(maps[0], "M") == repr(scores[1]).replace(maps[1], "M")


KILLED = """
import json, sys
from volseg.storage import lease
lease.TIMES = lease.LeaseTimes(1.5, 0.1, 0.8)
import volseg
options = {name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(sys.argv[4]).items()}
volseg.predict(sys.argv[1], sys.argv[2], model=sys.argv[3], cluster="serial", resume=True, **options)
"""


@pytest.mark.slow
@pytest.mark.s3
def test_a_driver_that_was_killed_is_followed_by_another_with_equal_bytes(
    small_model: Path, tmp_path: Path, bucket: str
) -> None:
    raw = make_volume(tmp_path / "large.zarr", (24, 70, 90))
    predict(raw, tmp_path / "m.zarr", small_model)
    target = target_path(f"{bucket}/m.zarr")
    words = [sys.executable, "-c", KILLED, str(raw), str(target), str(small_model), json.dumps(SETTINGS)]
    for kills in count():
        driver = subprocess.Popen(words)
        try:
            assert driver.wait(timeout=8.0 + 2 * kills) == 0
            break
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.wait()
    assert kills > 0
    assert content(f"{bucket}/m.zarr") == content(tmp_path / "m.zarr")
    assert run_status(target).state == "complete"
