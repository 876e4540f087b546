"""The same voxels from every file format; temporary files are removed."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from volseg.blocks import Box
from volseg.errors import SourceError
from volseg.storage import LABELS, cached_memmap, memmap, open_readable, open_sections
from volseg.storage.cache import cache_folder
from volseg.storage.memmap import shared_memmap
from volseg.testing.factories import blobs, make_volume

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPE = (20, 9, 13)
FORMATS = ("raw.zarr", "raw.h5", "raw.tif", "sections")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


def write_volume(name: str, folder: Path) -> str:
    voxels = blobs(SHAPE)
    path = folder / name
    if name == "raw.zarr":
        make_volume(path, SHAPE, voxels=voxels)
    elif name == "raw.h5":
        with h5py.File(path, "w") as file:
            file["a/b"] = voxels
    elif name == "raw.tif":
        tifffile.imwrite(path, voxels, photometric="minisblack")
    else:
        path.mkdir()
        for z, section in enumerate(voxels):
            Image.fromarray(section).save(path / f"{z}.png")
    return str(path)


FIRST = Box((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_voxels_mirrored_outside(tmp_path: Path, temporary: Path, name: str) -> None:
    volume = open_readable(write_volume(name, tmp_path))
    expected = np.pad(blobs(SHAPE), 3, mode="reflect")
    for opened in (volume, pickle.loads(pickle.dumps(volume))):
        assert (opened.shape, opened.dtype) == (SHAPE, "uint8")
        np.testing.assert_array_equal(opened.read(Box((-3, -3, -3), tuple(n + 3 for n in SHAPE))), expected)
    stack = open_sections(volume.location)
    assert (stack.shape, stack.dtype) == (SHAPE, "uint8")
    np.testing.assert_array_equal(stack.read(2, 19), blobs(SHAPE)[2:19])


def test_the_temporary_file_of_a_stack_is_removed(tmp_path: Path, temporary: Path) -> None:
    volume = open_readable(write_volume("raw.tif", tmp_path))
    assert not list(temporary.iterdir())
    volume.read(FIRST)
    (file,) = temporary.iterdir()
    assert file.stat().st_size > blobs(SHAPE).nbytes
    del volume
    gc.collect()
    assert not list(temporary.iterdir())


def test_the_temporary_file_of_a_broken_stack_is_removed(tmp_path: Path, temporary: Path) -> None:
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(Path(write_volume("sections", tmp_path)) / "99.png")
    with pytest.raises(SourceError, match="99.png is"):
        open_readable(str(tmp_path / "sections")).read(FIRST)
    assert not list(temporary.iterdir())


DECODE = """
import sys, tempfile
from volseg.blocks import Box
from volseg.storage import open_readable, unpacked_stack
tempfile.tempdir = sys.argv[2]
decoded = []
slabs = unpacked_stack._slabs
unpacked_stack._slabs = lambda stack: decoded.append(1) or slabs(stack)
volume = open_readable(sys.argv[1])
volume.read(Box((0, 0, 0), (1, 1, 1)))
print(len(decoded), flush=True)
sys.stdin.readline()
"""


def test_processes_of_a_host_decode_a_stack_once_and_the_last_removes_it(tmp_path: Path, temporary: Path) -> None:
    command = [sys.executable, "-c", DECODE, write_volume("raw.tif", tmp_path), str(temporary)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    decoded = [int(process.stdout.readline()) for process in processes if process.stdout]
    assert sum(decoded) == 1
    for process in processes[1:]:
        process.communicate("end\n")
    assert len(list(temporary.iterdir())) == 1
    processes[0].communicate("end\n")
    assert not list(temporary.iterdir())


def test_a_half_written_file_is_written_anew(temporary: Path) -> None:
    parts = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    first = shared_memmap("key", parts.shape, "uint8", lambda: iter(parts))
    content = first.path.read_bytes()
    del first
    gc.collect()
    assert not list(temporary.iterdir())
    path = temporary / shared_memmap("key", parts.shape, "uint8", lambda: iter(parts)).path.name
    gc.collect()
    path.write_bytes(content[:-5])
    path.chmod(0o600)
    again = shared_memmap("key", parts.shape, "uint8", lambda: iter(parts))
    np.testing.assert_array_equal(again.array, parts)


def test_a_stack_larger_than_the_disk_is_refused_before_it_is_decoded(tmp_path, temporary, monkeypatch) -> None:
    monkeypatch.setattr(memmap, "_free_bytes", lambda _: 100)
    with pytest.raises(SourceError, match=r"0.0 GB free and .* set TMPDIR"):
        open_readable(write_volume("raw.tif", tmp_path)).read(FIRST)
    assert not list(temporary.iterdir())


def test_files_of_unknown_format_and_missing_paths_are_refused(tmp_path: Path) -> None:
    for name in ("a.nd2", "a.txt"):
        (tmp_path / name).write_text("x")
    for name, message in [
        ("a.txt", "neither a Zarr, an HDF5 file"),
        ("a.nd2", "is ND2, which volseg does not read; convert it"),
        ("none.zarr", "does not exist"),
    ]:
        with pytest.raises(SourceError, match=message):
            open_sections(str(tmp_path / name))


def test_a_cached_array_is_computed_once_for_each_key(cache: Path) -> None:
    computed: list[str] = []

    def parts(name: str) -> Iterator[np.ndarray]:
        computed.append(name)
        yield from np.arange(6).reshape(2, 3)

    for key in ("a", "a", "b", "a"):
        cached = cached_memmap("kind", key, (2, 3), "float16", partial(parts, key))
        np.testing.assert_array_equal(cached.array, np.arange(6).reshape(2, 3))
    assert computed == ["a", "b"]
    assert not list(cache.rglob("*.partial"))


def test_an_array_whose_computation_fails_is_not_cached(cache: Path, temporary: Path) -> None:
    def parts() -> Iterator[np.ndarray]:
        yield np.zeros(3)
        raise SourceError("a broken chunk")

    with pytest.raises(SourceError, match="a broken chunk"):
        cached_memmap("kind", "a", (2, 3), "float16", parts)
    assert not [path for path in (*cache.rglob("*"), *temporary.rglob("*")) if path.is_file()]


def test_without_a_writable_cache_an_array_is_a_temporary_file(cache: Path, temporary: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    cached = cached_memmap("kind", "a", (2, 3), "float32", lambda: iter(np.ones((2, 3))))
    assert cached.array.sum() == 6
    assert cached.path.parent == temporary


def test_greys_and_labels_of_one_stack_have_files_of_their_own(tmp_path: Path, temporary: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", blobs(SHAPE), photometric="miniswhite")
    grey, labels = open_readable(str(tmp_path / "a.tif")), open_readable(str(tmp_path / "a.tif"), LABELS)
    whole = Box.of_shape(SHAPE)
    np.testing.assert_array_equal(grey.read(whole), 255 - blobs(SHAPE))
    np.testing.assert_array_equal(labels.read(whole), blobs(SHAPE))
