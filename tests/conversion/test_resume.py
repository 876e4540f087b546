"""A conversion that is killed anywhere and resumed gives the bytes of one never killed; another one is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import volseg
from tests.conversion.volumes import NAMES, OPTIONS, tree
from volseg.cluster import policy
from volseg.errors import ResumeError, SourceError, TargetError, TargetLostError
from volseg.storage import Place, open_target
from volseg.storage.create import create_volume
from volseg.storage.lock import locked
from volseg.storage.unfinished import unfinished, work_folder
from volseg.testing.doubles import ActAfter, NoteRecorder
from volseg.testing.factories import blobs

if TYPE_CHECKING:
    from pathlib import Path

SHAPE, SHARD = (24, 40, 40), (8, 32, 32)
ZARR = OPTIONS["ome-zarr"]
BLOCKS = 12


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture
def raw(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A volume of twelve shards, and no pauses between attempts."""
    monkeypatch.setattr(policy, "FIRST_BACKOFF", 0.0)
    create_volume(
        here / "raw.zarr",
        shape=SHAPE,
        shard=SHARD,
        chunk=(8, 16, 16),
        dtype="uint8",
        place=Place.of_nm((8.0, 8.0, 8.0)),
    )._array[:] = blobs(SHAPE)
    return here / "raw.zarr"


def stopped(target: str, blocks: int, **options: Any) -> None:
    """Stop a conversion when so many blocks are done."""
    with pytest.raises(KeyboardInterrupt):
        volseg.convert("raw.zarr", target, progress=ActAfter(blocks, interrupt), cluster="serial", **options)


@pytest.mark.parametrize("kind", NAMES)
def test_a_resumed_conversion_gives_the_bytes_of_one_never_stopped(raw: Path, kind: str) -> None:
    here, name, options = raw.parent, NAMES[kind], OPTIONS.get(kind, {})
    (here / "whole").mkdir()
    total = volseg.convert("raw.zarr", f"whole/{name}", cluster="serial", **options).blocks
    stopped(name, 1, **options)
    assert not (here / name).exists()
    if total > 4:
        with pytest.raises(KeyboardInterrupt):
            volseg.convert("raw.zarr", name, resume=True, progress=ActAfter(2, interrupt), cluster="serial")
    done = volseg.convert("raw.zarr", name, resume=True, cluster="serial")
    assert (done.complete, done.already_done + done.done) == (True, total)
    assert done.already_done >= 1
    assert tree(here / name) == tree(here / "whole" / name)
    assert not work_folder(here / name).exists()


KILLED = """
import os, sys
import volseg
from volseg.conversion import plan
plan._LEAST_BYTES = 1
from volseg.cluster import NullProgress

class Kill(NullProgress):
    def advance(self, voxels, busy=None):
        os.kill(os.getpid(), 9)

volseg.convert("raw.zarr", "v.zarr", progress=Kill(), cluster="serial", chunk=(4, 16, 16), shard=(8, 32, 32))
"""


def test_a_kill_leaves_no_volume_and_what_resumes(raw: Path) -> None:
    here = raw.parent
    volseg.convert("raw.zarr", "whole.zarr", **ZARR)
    assert subprocess.run([sys.executable, "-c", KILLED], cwd=here, check=False).returncode == -9
    assert not (here / "v.zarr").exists()
    with pytest.raises(TargetError, match="an unfinished conversion to .* give --resume to finish it, or --overwrite"):
        volseg.convert("raw.zarr", "v.zarr")
    assert volseg.convert("raw.zarr", "v.zarr", resume=True).complete
    whole, found = tree(here / "whole.zarr"), tree(here / "v.zarr")
    assert json.loads(found.pop("zarr.json"))["attributes"]["volseg_conversion"] is not None
    whole.pop("zarr.json")  # names the image
    assert found == whole


def test_shards_that_are_lost_or_cut_are_copied_again(raw: Path) -> None:
    here = raw.parent
    stopped("v.zarr", 6, **ZARR)
    shards = sorted(path for path in (work_folder(here / "v.zarr") / "v.zarr/0/c").rglob("*") if path.is_file())
    assert len(shards) >= 6
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    notes = NoteRecorder()
    done = volseg.convert("raw.zarr", "v.zarr", resume=True, progress=notes)
    assert (done.complete, done.already_done, done.done) == (True, 4, BLOCKS - 4)
    assert "2 blocks that were done lost files" in notes.lines[0]
    np.testing.assert_array_equal(open_target(here / "v.zarr")._array[:], blobs(SHAPE))


def test_a_complete_conversion_is_not_begun_again(raw: Path) -> None:
    volseg.convert("raw.zarr", "v.zarr", **ZARR)
    before = tree(raw.parent / "v.zarr")
    again = volseg.convert("raw.zarr", "v.zarr", resume=True)
    assert (again.complete, again.done, again.already_done) == (True, 0, BLOCKS)
    assert tree(raw.parent / "v.zarr") == before
    with pytest.raises(ResumeError, match="another limits|another dtype"):
        volseg.convert("raw.zarr", "v.zarr", resume=True, dtype="uint16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"roi": "0:8,:,:"}, "another region"),
        ({"dtype": "uint16"}, "another dtype"),
        ({"shard": (8, 16, 16)}, "another shard"),
        ({"no_shards": True}, "another shard"),
        ({"voxel_size": (9.0, 8.0, 8.0)}, "another voxel size"),
        ({"format": "n5"}, "another format|does not apply"),
        ({"source": "other.zarr"}, "another source"),
        ({"channel": "1"}, "another source options|no channel|has no"),
    ],
)
def test_another_conversion_is_not_resumed(raw: Path, options: dict[str, Any], message: str) -> None:
    shutil.copytree(raw, raw.parent / "other.zarr")
    open_target(raw.parent / "other.zarr")._array[:] = 3
    stopped("v.zarr", 3, **ZARR)
    before = tree(work_folder(raw.parent / "v.zarr"))
    with pytest.raises(volseg.VolsegError, match=message):
        volseg.convert(options.pop("source", "raw.zarr"), "v.zarr", resume=True, **options)
    assert tree(work_folder(raw.parent / "v.zarr")) == before


def test_a_source_that_was_edited_is_not_resumed_and_one_that_moved_is(raw: Path) -> None:
    stopped("v.zarr", 3, **ZARR)
    shutil.copytree(raw, raw.parent / "moved.zarr")
    array: Any = open_target(raw)._array
    array[20, 39, 39] += 1
    with pytest.raises(ResumeError, match="raw.zarr/0 has changed since"):
        volseg.convert("raw.zarr", "v.zarr", resume=True)
    assert volseg.convert("moved.zarr", "v.zarr", resume=True).complete


def test_of_two_conversions_to_one_path_the_second_is_refused(raw: Path) -> None:
    refused: list[str] = []

    def second() -> None:
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(TargetError, match="another run is writing into") as error:
                volseg.convert("raw.zarr", "v.zarr", **options)
            refused.append(str(error.value))

    assert volseg.convert("raw.zarr", "v.zarr", progress=ActAfter(2, second), cluster="serial", **ZARR).complete
    assert len(refused) == 3


def test_a_run_that_writes_into_the_target_keeps_it(raw: Path) -> None:
    volseg.convert("raw.zarr", "v.zarr", **ZARR)
    (raw.parent / "v.zarr/0/.volseg").mkdir()
    with (
        locked(raw.parent / "v.zarr/0/.volseg/lock", "held"),
        pytest.raises(TargetError, match="another run is writing"),
    ):
        volseg.convert("raw.zarr", "v.zarr", overwrite=True)


def test_a_replacement_is_whole_or_not_there(raw: Path) -> None:
    here = raw.parent
    volseg.convert("raw.zarr", "v.zarr", **ZARR)
    open_target(raw)._array[:] = 9
    before = tree(here / "v.zarr")
    stopped("v.zarr", 4, overwrite=True, **ZARR)
    assert tree(here / "v.zarr") == before
    assert volseg.convert("raw.zarr", "v.zarr", resume=True).complete
    assert (np.asarray(open_target(here / "v.zarr")._array[:]) == 9).all()
    assert sorted(path.name for path in here.iterdir()) == ["raw.zarr", "v.zarr"]


def test_a_kill_between_the_exchange_and_the_end_leaves_the_new_volume(raw: Path, monkeypatch: Any) -> None:
    from volseg.storage import unfinished as module

    here = raw.parent
    volseg.convert("raw.zarr", "v.zarr", **ZARR)
    open_target(raw)._array[:] = 9
    publish: Any = vars(module)["publish"]

    def killed(*arguments: Any, **options: Any) -> None:
        publish(*arguments, **options)
        interrupt()

    with monkeypatch.context() as patch:
        patch.setattr(module, "publish", killed)
        patch.setattr(module, "_is_begun", lambda *_: True)
        with pytest.raises(KeyboardInterrupt):
            volseg.convert("raw.zarr", "v.zarr", overwrite=True, **ZARR)
    assert unfinished(here / "v.zarr") is None
    assert volseg.convert("raw.zarr", "v.zarr", resume=True).done == 0
    assert (np.asarray(open_target(here / "v.zarr")._array[:]) == 9).all()
    assert sorted(path.name for path in here.iterdir()) == ["raw.zarr", "v.zarr"]


def test_a_target_that_is_taken_away_ends_the_run(raw: Path) -> None:
    folder = work_folder(raw.parent / "v.zarr")
    progress = ActAfter(2, lambda: (folder / "record.json").unlink())
    with pytest.raises(TargetLostError, match="was ended or replaced"):
        volseg.convert("raw.zarr", "v.zarr", progress=progress, cluster="serial", **ZARR)


def test_a_chunk_that_goes_missing_is_a_fault_and_one_that_was_missing_is_not(raw: Path) -> None:
    (raw / "0/c/2/1/1").unlink()
    with pytest.raises(SourceError, match="--missing-chunks fill"):
        volseg.convert("raw.zarr", "v.zarr", missing_chunks="refuse", **ZARR)
    notes = NoteRecorder()
    done = volseg.convert("raw.zarr", "v.zarr", progress=notes, **ZARR)
    assert (done.complete, done.chunks, done.chunks_absent) == (True, BLOCKS, 1)
    assert "lacks 1 of 12 chunks" in notes.lines[0]
    lost = ActAfter(2, (raw / "0/c/2/0/0").unlink)
    partly = volseg.convert("raw.zarr", "w.zarr", progress=lost, cluster="serial", **ZARR)
    assert (partly.complete, len(partly.failed)) == (False, 1)
    assert "was there at the start and is gone" in next(iter(partly.failed.values()))
    assert not (raw.parent / "w.zarr").exists()


def test_what_is_read_back_is_compared(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from volseg.storage.writers.ome_zarr import OmeZarrWriter

    read, wrong = OmeZarrWriter.read, [1, 2, 3]

    def once(self: OmeZarrWriter, box: Any) -> Any:
        voxels = read(self, box).copy()
        if wrong and wrong.pop():
            voxels[0, 0, 0] += 1
        return voxels

    monkeypatch.setattr(OmeZarrWriter, "read", once)
    notes = NoteRecorder()
    assert volseg.convert("raw.zarr", "v.zarr", cluster="serial", progress=notes, **ZARR).complete
    assert "reads back other than it was written" in notes.lines[0]
