"""Levels that are stopped, killed or damaged get the bytes of those that never were."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import volseg
from tests.conversion.images import SHAPE, datasets, image, levels
from tests.conversion.volumes import tree
from volseg.conversion import pyramid
from volseg.conversion.pyramid_worker import LevelsWriter
from volseg.errors import TargetError
from volseg.storage.lock import locked
from volseg.storage.target import Target
from volseg.testing.doubles import NoteRecorder
from volseg.testing.factories import blobs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Box

pytestmark = pytest.mark.usefixtures("here")


def stop_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int) -> None:
    """Stop at a call of a function."""
    function, left = getattr(owner, name), [number]

    def call(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("at", [("write", 1), ("write", 3), ("write", 4), ("list", 0), ("remove", 0)])
def test_a_stopped_one_is_resumed_to_equal_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, at: tuple[str, int]
) -> None:
    voxels = blobs((4, 100, 128))
    whole, path = (image(tmp_path / name / "i.zarr", voxels, version) for name in ("whole", "stopped"))
    for one in (whole, path):
        volseg.pyramid(one, levels=1, cluster="serial")
    options = {"levels": 2, "cluster": "serial"}
    volseg.pyramid(whole, overwrite=True, **options)
    calls = {"write": (Target, "write"), "list": (pyramid, "list_levels")}
    owner, name = calls.get(at[0], (pyramid, "remove_level"))
    stop_at(monkeypatch, owner, name, at[1])
    with pytest.raises(KeyboardInterrupt):
        volseg.pyramid(path, overwrite=True, **options)
    monkeypatch.undo()
    if at[0] != "remove":
        assert [one["path"] for one in datasets(path)] == ["s0", "s1"]
        with pytest.raises(TargetError, match="unfinished levels of .* give --resume to finish them, or --overwrite"):
            volseg.pyramid(path, **options)
    assert volseg.pyramid(path, resume=True, cluster="serial").complete
    assert [one["path"] for one in datasets(path)] == ["s0", "s2", "s3"]
    found, expected = (
        {name: content for name, content in tree(one).items() if ".volseg" not in name} for one in (path, whole)
    )
    assert found == expected


@pytest.mark.parametrize("kind", ["lost", "cut", "changed", "coarse"])
def test_lost_and_changed_files_are_made_again(tmp_path: Path, kind: str) -> None:
    path = image(tmp_path / "i.zarr", blobs(SHAPE))
    volseg.pyramid(path, levels=3, cluster="serial")
    before = {name: content for name, content in tree(path).items() if ".volseg" not in name}
    file = path / ("s3" if kind == "coarse" else "s1") / "c/0/0/0"
    content = file.read_bytes()
    if kind in ("lost", "coarse"):
        file.unlink()
    else:
        file.write_bytes(content[:-9] if kind == "cut" else bytes([content[0] ^ 1]) + content[1:])
    progress = NoteRecorder()
    done = volseg.pyramid(path, resume=True, check=kind == "changed", cluster="serial", progress=progress)
    assert done.complete
    assert (progress.done, progress.planned) == (done.done, done.done)
    assert done.done == {"coarse": 1}.get(kind, 3)
    assert {name: content for name, content in tree(path).items() if ".volseg" not in name} == before
    assert volseg.pyramid(path, resume=True, check=True, cluster="serial").done == 0


def test_what_is_read_back_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read, wrong = image(tmp_path / "i.zarr", blobs(SHAPE)), LevelsWriter.read, [True]

    def once(self: LevelsWriter, box: Box) -> NDArray[Any]:
        voxels = read(self, box).copy()
        if wrong and wrong.pop():
            voxels[0, 0, 0] += 1
        return voxels

    monkeypatch.setattr(LevelsWriter, "read", once)
    notes = NoteRecorder()
    assert volseg.pyramid(path, levels=2, cluster="serial", progress=notes).complete
    assert "reads back other than it was written" in notes.lines[0]


KILLED = """
import os
import volseg
from volseg.cluster import NullProgress
from volseg.conversion import plan
plan._LEAST_BYTES = 1

class Kill(NullProgress):
    blocks = 0

    def advance(self, voxels, busy=None):
        self.blocks += 1
        if self.blocks == 5:
            os.kill(os.getpid(), 9)

volseg.pyramid("i.zarr", progress=Kill(), levels=3, cluster="serial")
"""


def test_a_kill_leaves_an_image_as_it_was_and_what_resumes(tmp_path: Path) -> None:
    path, whole = (image(tmp_path / name, blobs(SHAPE)) for name in ("i.zarr", "whole.zarr"))
    volseg.pyramid(whole, levels=3, cluster="serial")
    before = (path / "zarr.json").read_bytes()
    assert subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, check=False).returncode == -9
    assert (path / "zarr.json").read_bytes() == before
    assert volseg.pyramid(path, resume=True, cluster="serial").complete
    assert all((a == b).all() for a, b in zip(levels(path), levels(whole), strict=True))


def test_two_at_once_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image(tmp_path / "i.zarr", blobs(SHAPE))
    stop_at(monkeypatch, Target, "write", 4)
    with pytest.raises(KeyboardInterrupt):
        volseg.pyramid(path, levels=2, cluster="serial")
    with locked(path / "s1" / ".volseg" / "lock", ""):
        for options in ({"resume": True}, {"overwrite": True}, {}):
            with pytest.raises(TargetError, match="another run is writing"):
                volseg.pyramid(path, **options)


def test_nothing_is_left_of_a_run_without_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image(tmp_path / "i.zarr", blobs(SHAPE))
    before = tree(path)
    stop_at(monkeypatch, Target, "write", 0)
    with pytest.raises(KeyboardInterrupt):
        volseg.pyramid(path, levels=2, cluster="serial")
    assert tree(path) == before
