"""A path holds the old Zarr or the new one, whole, whenever a process dies; nothing of a live one is touched."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import volseg.storage.publish
from volseg.errors import TargetError
from volseg.storage import Journal
from volseg.storage.publish import claim_target, exchange, settle, staged
from volseg.testing.factories import make_volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KILLS = """
import json, os, sys
from pathlib import Path
import volseg.storage.publish as publish

EVENTS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "open", "shutil.rmtree", "ctypes.dlsym"}

def make(folder, content):
    (folder / "0").mkdir(parents=True)
    group = '{"node_type": "group", "attributes": {"multiscales": [{"datasets": [{"path": "0"}]}]}}'
    (folder / "zarr.json").write_text(group)
    (folder / "0" / "zarr.json").write_text('{"node_type": "array"}')
    (folder / "0" / "c").write_text(content)

def content(path):
    names = sorted(str(p.relative_to(path)) for p in path.rglob("*"))
    return [names, (path / "0" / "c").read_text()] if path.exists() else None

def killed(step, action):
    '''Whether a process that runs the action dies before its change of the disk with this number.'''
    child = os.fork()
    if not child:
        count = 0
        def count_changes(event, arguments):
            nonlocal count
            if event in EVENTS and (event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR)):
                count += 1
                if count == step:
                    os._exit(9)
        sys.addaudithook(count_changes)
        action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

def replace(path, overwrite):
    with publish.staged(path, overwrite=overwrite) as new:
        make(new, "new")

def kill_at_each_step(parent, existing):
    step, rows = 0, []
    while True:
        step += 1
        folder = parent / str(step)
        folder.mkdir(parents=True)
        path = folder / "t.zarr"
        if existing:
            make(path, "old")
        died = killed(step, lambda: replace(path, existing))
        at_once = content(path)
        publish.settle(path)
        settled, left = content(path), sorted(os.listdir(folder))
        rows.append([at_once, settled, left])
        if not died:
            return rows
        replace(path, settled is not None)
        assert content(path)[1] == "new" and os.listdir(folder) == ["t.zarr"], step

parent, kinds = Path(sys.argv[1]), {}
kinds["create"] = kill_at_each_step(parent / "create", False)
kinds["exchange"] = kill_at_each_step(parent / "exchange", True)
publish.exchange = lambda first, second: False
kinds["two renames"] = kill_at_each_step(parent / "renames", True)
print(json.dumps(kinds))
"""
WHOLE = ["0", "0/c", "0/zarr.json", "zarr.json"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What each kill left: at once, after `settle`, and the names in the folder."""
    command = [sys.executable, "-c", KILLS, str(tmp_path_factory.mktemp("killed"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kinds: dict[str, list[Any]] = json.loads(done.stdout)
    return kinds


@pytest.mark.parametrize("kind", ["create", "exchange", "two renames"])
def test_a_kill_at_any_step_leaves_the_old_or_the_new_one_whole(killed: dict[str, list[Any]], kind: str) -> None:
    old, new = None if kind == "create" else [WHOLE, "old"], [WHOLE, "new"]
    between = None if kind == "two renames" else old
    assert len(killed[kind]) > 8
    for at_once, settled, left in killed[kind]:
        assert at_once in (old, new, between)
        assert settled in (old, new)
        assert left == ([] if settled is None else ["t.zarr"])
    assert {str(settled) for _, settled, _ in killed[kind]} == {str(old), str(new)}
    assert any(at_once == between for at_once, _, _ in killed[kind])


def make(folder: Path, content: str = "x") -> Path:
    folder.mkdir(parents=True)
    (folder / "zarr.json").write_text('{"node_type": "array"}')
    (folder / "c").write_text(content)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stage(path: Path, *, overwrite: bool = True, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Publish a new Zarr, after something else has happened."""
    with staged(path, overwrite=overwrite) as new:
        make(new, "new")
        meanwhile()


def test_a_new_zarr_does_not_replace_one_that_appeared_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    with pytest.raises(TargetError, match=r"t.zarr appeared meanwhile and is kept; give --overwrite"):
        stage(path, overwrite=False, meanwhile=lambda: make(path, "another's"))
    assert (path / "c").read_text() == "another's"
    assert names(tmp_path) == ["t.zarr"]


def test_an_error_within_leaves_all_as_it_was(tmp_path: Path) -> None:
    path = make(tmp_path / "t.zarr", "old")
    with pytest.raises(ZeroDivisionError):
        stage(path, meanwhile=lambda: 1 // 0)
    assert (path / "c").read_text() == "old"
    assert names(tmp_path) == ["t.zarr"]


def test_a_run_that_begins_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path, journals = make_volume(tmp_path / "t.zarr", (2, 32, 32)), list[Journal]()
    with pytest.raises(TargetError, match=r"another run is writing into .*t.zarr"):
        stage(path, meanwhile=lambda: journals.append(Journal(path / "0" / ".volseg")))
    journals[0].close()
    assert (path / "0" / ".volseg" / "lock").exists()


def test_a_failed_second_rename_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, rename = make(tmp_path / "t.zarr", "old"), os.rename
    monkeypatch.setattr(volseg.storage.publish, "exchange", lambda first, second: False)
    seen: list[str] = []

    def fail_second(source: str, target: str) -> None:
        seen.append(str(source))
        if len(seen) == 3:  # the first finds the path taken, the second moves it aside
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_second)
    with pytest.raises(TargetError, match=r"cannot replace .*t.zarr: Input/output error"):
        stage(path)
    assert (path / "c").read_text() == "old"
    assert names(tmp_path) == ["t.zarr"]


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("owner", "kept"),
    [
        ("{host}.{dead}.0123abcd", False),
        ("{host}.{self}.0123abcd", False),  # as in containers, where numbers repeat
        ("{host}.1.0123abcd", True),
        ("another-host.{dead}.0123abcd", True),
        ("notes", True),
    ],
)
def test_only_what_a_dead_process_of_this_host_left_is_deleted(tmp_path: Path, owner: str, kept: bool) -> None:
    name = owner.format(host=socket.gethostname(), dead=dead_pid(), self=os.getpid())
    left = make(tmp_path / f".t.zarr@{name}.staging" / "t.zarr")
    (left.parent / "lock").touch()
    settle(tmp_path / "t.zarr")
    assert left.exists() == kept


def test_an_unfinished_replacement_of_another_host_is_named(tmp_path: Path) -> None:
    old = make(tmp_path / ".t.zarr@another-host.7.0123abcd.staging" / "old")
    with pytest.raises(TargetError, match=rf"t.zarr is being replaced by .*another-host.7.*move {old} back to"):
        claim_target(str(tmp_path / "t.zarr"), overwrite=False)
    old.rename(tmp_path / "t.zarr")
    assert claim_target(str(tmp_path / "t.zarr"), overwrite=True) == tmp_path / "t.zarr"


def test_the_staging_folder_of_a_live_owner_is_kept(tmp_path: Path) -> None:
    with staged(tmp_path / "t.zarr") as new:
        make(new)
        settle(tmp_path / "t.zarr")
        assert (new / "c").exists()
        # Locked, though its number belongs to no process, as one of another container.
        hidden = new.parent.with_name(f".t.zarr@{socket.gethostname()}.{dead_pid()}.0123abcd.staging")
        new.parent.rename(hidden)
        settle(tmp_path / "t.zarr")
        assert hidden.exists()
        hidden.rename(new.parent)
    assert (tmp_path / "t.zarr" / "c").exists()


def test_an_exchange_is_one_step_or_none(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a", "1"), make(tmp_path / "b", "2")
    if not exchange(first, second):
        pytest.skip("no exchange on this system or file system")
    assert ((first / "c").read_text(), (second / "c").read_text()) == ("2", "1")
    with pytest.raises(FileNotFoundError):
        exchange(first, tmp_path / "none")


def test_a_target_is_named_without_its_links_like_a_source(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert claim_target(str(tmp_path / "link" / "t.zarr"), overwrite=False) == tmp_path / "disk" / "t.zarr"
    (tmp_path / "t.zarr").symlink_to(make(tmp_path / "disk" / "real.zarr", "old"))
    with staged(tmp_path / "t.zarr", overwrite=True) as new:
        make(new, "new")
    assert (tmp_path / "t.zarr").is_symlink()
    assert (tmp_path / "disk" / "real.zarr" / "c").read_text() == "new"
