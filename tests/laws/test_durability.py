"""A mark speaks of shards that are on the disk; one that is lost all the same is computed again before exit 0."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

import volseg
from volseg.blocks import Box
from volseg.cli.main import main
from volseg.errors import TargetError
from volseg.storage import Journal, Mark
from volseg.storage.create import create_volume
from volseg.storage.mark_records import RECORD_BYTES
from volseg.storage.object_target import open_target
from volseg.storage.place import Place
from volseg.storage.publish import staged
from volseg.testing.doubles import NoteRecorder
from volseg.testing.factories import make_volume

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = (1, 32, 32)
BLOCKS = 2 * 2 * 3

PLACE = Place.of_nm((1.0, 1.0, 1.0))


def shards(target: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(target)): path.read_bytes() for path in sorted(target.glob("**/c/**/*")) if path.is_file()
    }


@pytest.fixture(scope="module")
def options(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    raw = make_volume(tmp_path_factory.mktemp("raw") / "raw.zarr", (2, 60, 90))
    return {
        "source": str(raw), "model": str(small_model), "block": BLOCK, "halo": (0, 8, 8), "cluster": "serial",
        "orientations": "flips", "uncertainty": True, "precision": "float32",
    }  # fmt: skip


@pytest.fixture
def done(options: dict[str, Any], tmp_path: Path, whole: Path) -> Path:
    """A finished run, to be damaged."""
    subprocess.run(["cp", "-r", str(whole), str(tmp_path / "t.zarr")], check=True)
    return tmp_path / "t.zarr"


@pytest.fixture(scope="module")
def whole(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("whole") / "whole.zarr"
    volseg.predict(target=str(target), **options)
    return target


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize(("damage", "volume"), [(Path.unlink, "0"), (truncate, "uncertainty/0")])
def test_a_lost_shard_is_computed_again(
    options: dict[str, Any], done: Path, damage: Callable[[Path], None], volume: str
) -> None:
    before = shards(done)
    damage(done / volume / "c" / "1" / "0" / "2")
    summary = volseg.predict(target=str(done), **options, resume=True)
    assert (summary.already_done, summary.done, summary.failed) == (BLOCKS - 1, 1, {})
    assert shards(done) == before
    assert volseg.predict(target=str(done), **options, resume=True).done == 0


def test_exit_0_comes_after_the_check(options: dict[str, Any], done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (done / "0" / "c" / "0" / "0" / "0").unlink()
    monkeypatch.setattr("volseg.prediction.worker.process_block", lambda number, pipeline: 1 / 0)
    command = ["predict", options["source"], str(done), "--model", options["model"], "--cluster", "serial", "--resume"]
    result = CliRunner().invoke(main, [*command, "--orientations", "flips", "--uncertainty", "--precision", "float32"])
    assert result.exit_code == 3, result.output
    assert "1 block that was done lost shards" in result.stderr


def test_blocks_of_damaged_marks_are_computed_again(options: dict[str, Any], done: Path) -> None:
    (segment,) = (done / "0" / ".volseg").glob("*.marks")
    content = bytearray(segment.read_bytes())
    content[-9] ^= 1
    segment.write_bytes(content)
    notes = NoteRecorder()
    assert volseg.predict(target=str(done), **options, resume=True, progress=notes).done == 1
    assert any("1 mark of the journal cannot be read" in line for line in notes.lines)


@pytest.mark.parametrize("change", [{"shape": [2, 32, 32]}, {"data_type": "uint16"}])
def test_a_target_whose_metadata_were_edited_is_not_written_on(
    options: dict[str, Any], done: Path, change: dict[str, Any]
) -> None:
    path = done / "0" / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(TargetError, match=r"0 has (shape|type) .*, and its run .*: its metadata were edited"):
        volseg.predict(target=str(done), **options, resume=True)


def test_a_record_that_was_edited_is_not_read(options: dict[str, Any], done: Path) -> None:
    path = done / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["volseg"]["settings"]["threads"] += 1
    path.write_text(json.dumps(document))
    with pytest.raises(TargetError, match="run record in .* was changed since it was written"):
        volseg.predict(target=str(done), **options, resume=True)


def small_target(path: Path) -> None:
    create_volume(path, shape=(1, 32, 64), shard=(1, 32, 32), chunk=(1, 32, 32), dtype="uint8", place=PLACE)


def test_the_disk_has_the_shard_before_its_name_and_its_folder_before_the_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("names of open files are read from /proc")
    small_target(tmp_path / "t.zarr")
    events: list[tuple[str, str]] = []
    sync, replace = os.fsync, os.replace

    def on_sync(file: int) -> None:
        path = str(Path(f"/proc/self/fd/{file}").readlink())
        lines = Path(path).stat().st_size // RECORD_BYTES if path.endswith("marks") else ""
        events.append(("sync", f"{path.removeprefix(str(tmp_path / 't.zarr'))}{lines}"))
        sync(file)

    def on_replace(source: str, target: str) -> None:
        events.append((str(source), str(target).removeprefix(str(tmp_path / "t.zarr"))))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", on_sync)
    monkeypatch.setattr(os, "replace", on_replace)
    target, box = open_target(tmp_path / "t.zarr"), Box((0, 0, 0), (1, 32, 32))
    with Journal(target.journal) as journal:
        events.clear()
        digest, size, files = target.write(box, np.ones(box.shape, np.uint8))
        journal.mark(Mark(0, digest, 1, "here", 0.1, "", size, files), target.shard_folders(box))
    names = [name for kind, name in events if kind == "sync" or name == "/0/c/0/0/0"]
    assert names[0].startswith("/0/.partial/")
    assert names[-1] == "/0/.volseg/journal-0001.marks3"
    # The file, its name (twice: the folder is made after the first), the folders from the shard's up, the mark.
    assert names[1:-1] == ["/0/c/0/0/0", "/0/c/0/0/0", "/0/c/0/0", "/0/c/0", "/0/c", "/0"]


def test_a_mark_that_cannot_be_written_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "t.zarr" / "0").mkdir(parents=True)
    journal = Journal(tmp_path / "t.zarr" / "0" / ".volseg")
    monkeypatch.setattr(os, "fsync", full)
    journal.mark(Mark(0, "", 1, "here", 0.1))
    with pytest.raises(TargetError, match=r"cannot write the journal .*: No space left on device; free some space"):
        journal.close()
    with pytest.raises(TargetError, match="No space left"):
        journal.mark(Mark(1, "", 1, "here", 0.1))


def test_a_late_write_does_not_reach_the_next_target(tmp_path: Path) -> None:
    path, box, ones = tmp_path / "t.zarr", Box((0, 0, 0), (1, 32, 32)), np.ones((1, 32, 32), np.uint8)
    small_target(path)

    def replaced_after_the_check() -> None:
        with staged(path, overwrite=True) as new:
            small_target(new)

    with pytest.raises(TargetError, match="cannot write"):
        open_target(path).write(box, ones, replaced_after_the_check)
    assert shards(path) == {}

    def replaced_and_written_after_the_check() -> None:
        replaced_after_the_check()
        open_target(path).write(box, ones)

    open_target(path).clear(box, replaced_and_written_after_the_check)
    assert open_target(path).read(box).all()


def test_a_write_that_is_refused_leaves_the_old_shard(tmp_path: Path) -> None:
    path, box = tmp_path / "t.zarr", Box((0, 0, 0), (1, 32, 32))
    small_target(path)
    target = open_target(path)
    target.write(box, np.ones(box.shape, np.uint8))

    def refuse() -> None:
        raise TargetError("another's")

    with pytest.raises(TargetError, match="another's"):
        target.write(box, np.zeros(box.shape, np.uint8), refuse)
    assert target.read(box).all()
    assert not [file for file in (path / "0" / ".partial").rglob("*") if file.is_file()]


KILLS = """
import json, os, shutil, sys
from pathlib import Path
import numpy as np
import volseg.storage.durable
from volseg.blocks import Box
from volseg.storage import Journal, Mark, Place, open_target, read_marks
from volseg.storage.create import create_volume

PLACE = Place.of_nm((1.0, 1.0, 1.0))
EVENTS = {"os.rename", "os.mkdir", "os.remove", "open"}
BOX = Box((0, 0, 0), (1, 32, 32))

def child(action, step=0):
    '''Run in a process of its own, which dies before its change of the disk with this number; whether it died.'''
    pid = os.fork()
    if not pid:
        count, sync = 0, os.fsync
        def change():
            nonlocal count
            count += 1
            if count == step:
                os._exit(9)
        def on_event(event, arguments):
            if event in EVENTS and (event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR)):
                change()
        def on_sync(file):
            change()
            sync(file)
        os.fsync = on_sync
        sys.addaudithook(on_event)
        action()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9), code
    return code == 9

def create():
    create_volume(first, shape=(1, 32, 64), shard=(1, 32, 32), chunk=(1, 32, 32), dtype="uint8", place=PLACE)

def resume():
    target = open_target(path)
    with Journal(target.journal) as journal:
        target.remove_partials()
        if not list(read_marks(target.journal)):
            digest, size, files = target.write(BOX, np.ones(BOX.shape, np.uint8))
            journal.mark(Mark(0, digest, 1, "here", 0.1, "", size, files), target.shard_folders(BOX))
    target.remove_partials()

def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes().hex() for p in folder.rglob("*")
            if p.is_file() and ".volseg" not in p.parts}

first, path = (Path(sys.argv[1], name) for name in ("first.zarr", "t.zarr"))
results, step, died = [], 0, True
child(create)
while died:
    step += 1
    shutil.copytree(first, path)
    died = child(resume, step)
    marked = [[m.block, m.bytes, (path / f"0/c/0/0/{m.block}").stat().st_size] for m in read_marks(path / "0/.volseg")]
    child(resume)
    results.append([marked, files(path)])
    shutil.rmtree(path)
print(json.dumps(results))
"""


@pytest.mark.slow
def test_a_kill_at_any_step_of_write_and_mark_leaves_what_a_resume_makes_equal(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert len(results) > 12
    assert len(results[-1][1]) == 2 + 1
    for marked, files in results:
        assert all(size == stored > 0 for _, size, stored in marked)
        assert files == results[-1][1]
    assert {len(marked) for marked, _ in results} == {0, 1}
