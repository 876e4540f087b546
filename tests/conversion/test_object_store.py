"""Conversions into object stores: the bytes of one on a disk, shown when they are complete, one owner at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

import volseg
from tests.object_fakes import object_server, s3_variables
from volseg.errors import ConfigError, ResumeError, SourceError, TargetError
from volseg.storage import ObjectPath, lease, open_target, target_path
from volseg.storage.object_client import reading_client, writing_client
from volseg.storage.target_store import target_store
from volseg.storage.unfinished import unfinished
from volseg.testing.doubles import ActAfter, NoteRecorder
from volseg.testing.factories import blobs, make_volume

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHAPE = (8, 40, 40)
OPTIONS: dict[str, Any] = {"chunk": (4, 16, 16), "shard": (4, 16, 16), "levels": 2, "cluster": "serial"}


@pytest.fixture(autouse=True)
def quick_lease(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(lease, "TIMES", lease.LeaseTimes(duration=1.0, beat=0.05, write=0.3))
    monkeypatch.setattr(lease, "_MARGIN", 0.05)
    yield
    for cached in (reading_client, writing_client, target_store):
        cached.cache_clear()


@pytest.fixture
def source(here: Path) -> str:
    return str(make_volume(here / "raw.zarr", SHAPE, voxels=blobs(SHAPE), chunk=(4, 40, 40)))


@pytest.fixture
def memory() -> ObjectPath:
    place = target_path(f"memory://{uuid4().hex}/copies/raw.zarr")
    assert isinstance(place, ObjectPath)
    return place


def objects(place: ObjectPath) -> dict[str, bytes]:
    return {entry.key[len(place.key) + 1 :]: (place / entry.key[len(place.key) + 1 :]).read_bytes()
            for entry in place.store.below(place.key)}  # fmt: skip


def on_disk(source: str, here: Path) -> dict[str, bytes]:
    volseg.convert(source, "disk/raw.zarr", **OPTIONS)
    root = here / "disk/raw.zarr"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def stopped(source: str, place: ObjectPath, blocks: int, **options: Any) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        volseg.convert(source, str(place), progress=ActAfter(blocks, interrupt), **OPTIONS, **options)


def test_a_copy_in_a_store_has_the_bytes_of_one_on_a_disk_and_leaves_its_lease_alone(
    source: str, here: Path, memory: ObjectPath
) -> None:
    done = volseg.convert(source, str(memory), **OPTIONS)
    assert (done.complete, done.target) == (True, str(memory))
    stored = objects(memory)
    stored.pop("0/.volseg/lease.json")
    assert stored == on_disk(source, here)


def test_a_copy_appears_when_it_is_complete_and_is_resumed_with_equal_bytes(
    source: str, here: Path, memory: ObjectPath
) -> None:
    stopped(source, memory, 2)
    assert not (memory / "zarr.json").is_file()
    with pytest.raises(TargetError, match="an unfinished conversion to memory://.* finish it with `volseg convert"):
        volseg.convert(source, str(memory), **OPTIONS)
    with pytest.raises(ResumeError, match="started with another"):
        volseg.convert(source, str(memory), resume=True, **OPTIONS | {"chunk": (4, 8, 8)})
    again = volseg.convert(source, str(memory), resume=True, **OPTIONS)
    assert again.complete
    assert again.already_done >= 1
    stored = objects(memory)
    stored.pop("0/.volseg/lease.json")
    assert stored == on_disk(source, here)
    assert volseg.convert(source, str(memory), resume=True, **OPTIONS).done == 0


def test_a_copy_whose_first_block_was_not_done_leaves_nothing(source: str, memory: ObjectPath) -> None:
    class Interrupted(NoteRecorder):
        def begin(self, blocks: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        volseg.convert(source, str(memory), progress=Interrupted(), **OPTIONS)
    assert list(objects(memory)) == ["0/.volseg/lease.json"]
    assert volseg.convert(source, str(memory), **OPTIONS).complete


def test_a_copy_that_is_there_is_replaced_only_with_overwrite_and_by_nothing_of_the_old_one(
    source: str, here: Path, memory: ObjectPath
) -> None:
    volseg.convert(source, str(memory), **OPTIONS | {"levels": 0, "chunk": (4, 8, 8)})
    with pytest.raises(TargetError, match="exists already; give --overwrite"):
        volseg.convert(source, str(memory), **OPTIONS)
    stopped(source, memory, 1, overwrite=True)
    assert unfinished(memory) is not None
    volseg.convert(source, str(memory), overwrite=True, **OPTIONS)
    stored = objects(memory)
    stored.pop("0/.volseg/lease.json")
    assert stored == on_disk(source, here)


def test_a_kill_between_the_last_put_and_the_end_is_tidied_by_the_next_start(source: str, memory: ObjectPath) -> None:
    stopped(source, memory, 2)
    left = {name: content for name, content in objects(memory).items() if ".volseg" in name}
    volseg.convert(source, str(memory), resume=True, **OPTIONS)
    before = objects(memory)
    for name, content in left.items():
        if not name.endswith("lease.json"):
            (memory / name).write_bytes(content)
    assert volseg.convert(source, str(memory), resume=True, **OPTIONS).done == 0
    assert set(objects(memory)) == set(before)


@pytest.mark.parametrize(
    ("name", "options", "error", "says"),
    [
        ("raw.n5", {}, ConfigError, "--format n5 is written to paths only; give --format ome-zarr for memory://"),
        ("raw.h5:a/b", {}, ConfigError, "--format hdf5 is written to paths only"),
        ("raw.zarr", {"format": "precomputed"}, ConfigError, "--format precomputed is written to paths only"),
        ("", {}, TargetError, "is a whole bucket; name a place in it"),
    ],
)
def test_what_is_not_written_to_a_store_is_refused_before_work(
    name: str, options: Any, error: type[Exception], says: str, source: str
) -> None:
    root = f"memory://{uuid4().hex}"
    with pytest.raises(error, match=says):
        volseg.convert(source, f"{root}/{name}", **{"cluster": "serial"}, **options)
    assert list(target_store(root).below("")) == []


def test_levels_are_not_added_in_a_store_and_the_line_says_what_makes_them(memory: ObjectPath) -> None:
    with pytest.raises(
        TargetError, match="no levels are added to memory://.*; volseg convert copies it with new levels"
    ):
        volseg.pyramid(str(memory))


@pytest.mark.parametrize("workers", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_a_copy_goes_from_store_to_store(
    workers: int | None, source: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_server() as server:
        for name, value in s3_variables(server.url).items():
            monkeypatch.setenv(name, value)
        first, second = (target_path(f"s3://bucket/{name}.zarr") for name in ("raw", "copy"))
        volseg.convert(source, str(first), **OPTIONS)
        done = volseg.convert(
            str(first), str(second), **OPTIONS | ({"cluster": "local", "workers": workers} if workers else {})
        )
        assert done.complete
        assert isinstance(second, ObjectPath)
        stored = {name: content for name, content in objects(second).items() if "/c/" in name}
    assert stored == {name: content for name, content in on_disk(source, here).items() if "/c/" in name}


def test_a_source_that_is_no_volume_leaves_nothing_in_the_store(here: Path, memory: ObjectPath) -> None:
    with pytest.raises(SourceError):
        volseg.convert("nowhere.zarr", str(memory), **OPTIONS)
    assert objects(memory) == {}


def test_threads_of_a_worker_encode_shards_in_one_folder(source: str, memory: ObjectPath) -> None:
    """Of two folders the first would be deleted while a thread writes into it."""
    volseg.convert(source, str(memory), **OPTIONS)
    for _ in range(20):
        target, meet = open_target(memory), Barrier(8)

        def folder(target: Any = target, meet: Barrier = meet) -> Path:
            meet.wait()
            found: Path = target._shard_files().folder
            return found

        with ThreadPoolExecutor(8) as pool:
            assert len({future.result() for future in [pool.submit(folder) for _ in range(8)]}) == 1
