"""An output never replaces or enters an input, and --overwrite deletes nothing but one volume."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import pytest
import zarr

from volseg.errors import TargetError
from volseg.storage.paths import local_output, refuse_other_content, refuse_overlap
from volseg.testing.factories import make_volume

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("location", ["s3://bucket/x.zarr", "gs://b/x", Path("s3://bucket/x.zarr"), "file:///x.zarr"])
def test_an_output_is_no_url(location: str | Path) -> None:
    with pytest.raises(TargetError, match="is a URL; write to a local or mounted path"):
        local_output(location)


@pytest.mark.parametrize(
    ("source", "target", "relation"),
    [
        ("raw.zarr", "raw.zarr", "would replace"),
        ("raw.zarr/0", "raw.zarr", "contains"),
        ("raw.zarr", "raw.zarr/map.zarr", "is inside"),
        ("link/raw.zarr", "raw.zarr/a/b/map.zarr", "is inside"),
        ("raw.zarr", "link/raw.zarr", "would replace"),
        ("to-raw", "raw.zarr", "would replace"),
        ("raw.zarr", "to-raw/map.zarr", "is inside"),
        ("file://{}/raw.zarr", "raw.zarr", "would replace"),
        ("v.h5:volumes/raw", "v.h5", "would replace"),
        ("raw.zarr", "../{name}/raw.zarr", "would replace"),
        ("raw.zarr", "raw-map.zarr", None),
        ("raw.zarr/0", "raw.zarr-2", None),
        ("s3://bucket/raw.zarr", "raw.zarr", None),
        ("none.zarr", "map.zarr", None),
    ],
)
def test_a_target_and_an_input_are_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, target: str, relation: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    make_volume(tmp_path / "raw.zarr", (2, 32, 32))
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "to-raw").symlink_to(tmp_path / "raw.zarr")
    with h5py.File(tmp_path / "v.h5", "w"):
        pass
    where = Path(target.format(name=tmp_path.name))
    if relation is None:
        refuse_overlap("source", source, where)
        return
    with pytest.raises(TargetError, match=f"{relation} source .*choose a path outside the source"):
        refuse_overlap("source", source.format(tmp_path), where)


def test_an_input_is_recognised_under_another_mount(tmp_path: Path) -> None:
    make_volume(tmp_path / "raw.zarr", (2, 32, 32))
    (tmp_path / "mount").mkdir()
    mount = ["mount", "--bind", str(tmp_path / "raw.zarr"), str(tmp_path / "mount")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount")
    try:
        with pytest.raises(TargetError, match="is inside source"):
            refuse_overlap("source", str(tmp_path / "raw.zarr"), tmp_path / "mount" / "map.zarr")
    finally:
        subprocess.run(["umount", str(tmp_path / "mount")], capture_output=True, check=True)


def add_labels(path: Path) -> None:
    zarr.create_array(path / "labels", shape=(2, 32, 32), chunks=(2, 32, 32), dtype="uint8")


def add_note(path: Path) -> None:
    (path / "notes.txt").write_text("precious")


def add_map_in_a_level(path: Path) -> None:
    make_volume(path / "0" / "map.zarr", (2, 32, 32))


def in_zarr_2(path: Path) -> None:
    for entry in sorted(path.rglob("*"), key=str, reverse=True):
        entry.rmdir() if entry.is_dir() else entry.unlink()
    zarr.create_group(path, zarr_format=2).create_array("raw", shape=(4, 4), chunks=(2, 2), dtype="uint8")


@pytest.mark.parametrize(
    ("change", "named"),
    [(add_labels, "labels"), (add_note, "notes.txt"), (add_map_in_a_level, "0/map.zarr"), (in_zarr_2, "raw")],
)
def test_a_zarr_that_holds_more_is_not_replaced(tmp_path: Path, change: Callable[[Path], None], named: str) -> None:
    path = make_volume(tmp_path / "g.zarr", (2, 32, 32))
    refuse_other_content(path)
    change(path)
    before = sorted(path.rglob("*"))
    with pytest.raises(TargetError, match=f"g.zarr also holds {named}, so --overwrite does not replace it"):
        refuse_other_content(path)
    assert sorted(path.rglob("*")) == before


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("version", [2, 3])
def test_one_array_of_any_layout_may_be_replaced(tmp_path: Path, version: int, separator: str) -> None:
    encoding = {"name": "v2" if version == 2 else "default", "separator": separator}
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=(4, 4),
        chunks=(2, 2),
        dtype="uint8",
        zarr_format=version,
        chunk_key_encoding=encoding,
    )
    array[:] = 1
    (tmp_path / "a.zarr" / ".DS_Store").touch()
    assert len(list((tmp_path / "a.zarr").iterdir())) > 2
    refuse_other_content(tmp_path / "a.zarr")
