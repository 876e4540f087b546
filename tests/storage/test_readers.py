"""One way in: the same voxels from every kind of file, and nothing left behind."""

from __future__ import annotations

import gc
import pickle
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
from volseg.storage import kept_array, memmap, open_readable, open_sections
from volseg.storage.cache import cache_folder
from volseg.testing.factories import blobs, make_volume

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPE = (20, 9, 13)
KINDS = ("raw.zarr", "raw.h5", "raw.tif", "sections")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


def stored_as(kind: str, folder: Path) -> str:
    voxels = blobs(SHAPE)
    path = folder / kind
    if kind == "raw.zarr":
        make_volume(path, SHAPE, voxels=voxels)
    elif kind == "raw.h5":
        with h5py.File(path, "w") as file:
            file["a/b"] = voxels
    elif kind == "raw.tif":
        tifffile.imwrite(path, voxels, photometric="minisblack")
    else:
        path.mkdir()
        for z, section in enumerate(voxels):
            Image.fromarray(section).save(path / f"{z}.png")
    return str(path)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_voxels_mirrored_outside(tmp_path: Path, temporary: Path, kind: str) -> None:
    volume = open_readable(stored_as(kind, tmp_path))
    expected = np.pad(blobs(SHAPE), 3, mode="reflect")
    for one in (volume, pickle.loads(pickle.dumps(volume))):
        assert (one.shape, one.dtype) == (SHAPE, "uint8")
        np.testing.assert_array_equal(one.read(Box((-3, -3, -3), tuple(n + 3 for n in SHAPE))), expected)
    stack, _ = open_sections(volume.location)
    assert (stack.shape, stack.dtype) == (SHAPE, "uint8")
    np.testing.assert_array_equal(stack.read(2, 19), blobs(SHAPE)[2:19])


def test_a_stack_leaves_no_file_behind(tmp_path: Path, temporary: Path) -> None:
    volume = open_readable(stored_as("raw.tif", tmp_path))
    (file,) = temporary.iterdir()
    assert file.stat().st_size > blobs(SHAPE).nbytes
    del volume
    gc.collect()
    assert not list(temporary.iterdir())


def test_a_stack_that_breaks_leaves_no_file_behind(tmp_path: Path, temporary: Path) -> None:
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(Path(stored_as("sections", tmp_path)) / "99.png")
    with pytest.raises(SourceError, match="99.png is"):
        open_readable(str(tmp_path / "sections"))
    assert not list(temporary.iterdir())


def test_a_stack_larger_than_the_disk_is_refused_before_it_is_decoded(tmp_path, temporary, monkeypatch) -> None:
    monkeypatch.setattr(memmap, "_free", lambda _: 100)
    with pytest.raises(SourceError, match=r"0.0 GB free and .* make room there, or set TMPDIR"):
        open_readable(stored_as("raw.tif", tmp_path))
    assert not list(temporary.iterdir())


def test_what_is_no_volume_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nd2").write_text("x")
    for name, message in [("a.nd2", "neither a Zarr, an HDF5 file"), ("none.zarr", "does not exist")]:
        with pytest.raises(SourceError, match=message):
            open_sections(str(tmp_path / name))


def test_an_array_is_made_once_and_again_for_another_key(cache: Path) -> None:
    made: list[str] = []

    def parts(name: str) -> Iterator[np.ndarray]:
        made.append(name)
        yield from np.arange(6).reshape(2, 3)

    for key in ("a", "a", "b", "a"):
        kept = kept_array("kind", key, (2, 3), "float16", partial(parts, key))
        np.testing.assert_array_equal(kept.array, np.arange(6).reshape(2, 3))
    assert made == ["a", "b"]
    assert not list(cache.rglob("*.partial"))


def test_what_breaks_while_it_is_made_is_not_kept(cache: Path, temporary: Path) -> None:
    def parts() -> Iterator[np.ndarray]:
        yield np.zeros(3)
        raise SourceError("a broken chunk")

    with pytest.raises(SourceError, match="a broken chunk"):
        kept_array("kind", "a", (2, 3), "float16", parts)
    assert not [path for path in (*cache.rglob("*"), *temporary.rglob("*")) if path.is_file()]


def test_a_cache_that_cannot_be_written_is_passed_over(cache: Path, temporary: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    kept = kept_array("kind", "a", (2, 3), "float32", lambda: iter(np.ones((2, 3))))
    assert kept.array.sum() == 6
    assert kept.path.parent == temporary
