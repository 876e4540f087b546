"""The census finds the chunks that a store lacks, in every form of keys, and a read tells which ones were missing."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from volseg.blocks import Box
from volseg.errors import SourceError, TargetError
from volseg.storage import open_readable, open_volume, read_census, take_census, unpacked_stack
from volseg.storage import watch as watching

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.storage import Volume

SHAPE = (5, 40, 50)
WHOLE = Box.of_shape(SHAPE)
CHUNKS = (2, 16, 16)
LOST = [(0, 1, 2), (2, 0, 0), (2, 2, 3)]
FORMS: dict[str, dict[str, Any]] = {
    "nested": {},
    "flat": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "zarr-2": {"zarr_format": 2},
    "zarr-2-nested": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "sharded": {"chunks": (1, 8, 8), "shards": CHUNKS},
    "x-y-z": {"shape": SHAPE[::-1], "chunks": CHUNKS[::-1]},
    "channel": {"shape": (1, 2, *SHAPE), "chunks": (1, 1, *CHUNKS)},
    "fill-7": {"fill_value": 7},
    "nan": {"dtype": "float32", "fill_value": float("nan")},
}


def volume_of(path: Path, form: str, *, url: bool = False) -> Volume:
    """A volume of ones of which three chunks were deleted."""
    options = {"shape": SHAPE, "chunks": CHUNKS, "dtype": "uint8", **FORMS[form]}
    zarr.create_array(path, **options)[...] = 1
    more: dict[str, Any] = {"axes": ("x", "y", "z")} if form == "x-y-z" else {}
    more |= {"channel": 1} if form == "channel" else {}
    volume = open_volume(f"file://{path}" if url else str(path), **more)
    for number in LOST:
        (path / volume.chunk_grid.key(number)).unlink()
    return volume


@pytest.mark.parametrize("url", [False, True], ids=["folder", "object-store"])
@pytest.mark.parametrize("form", FORMS)
def test_exactly_the_missing_chunks_are_found_by_a_census_and_by_a_read(tmp_path: Path, form: str, url: bool) -> None:
    volume = volume_of(tmp_path / "a", form, url=url)
    census = take_census(volume, WHOLE)
    assert (census.checked, census.absent, set(census.examples)) == (36, 3, set(map(volume.chunk_grid.key, LOST)))
    assert [n for n in product(*map(range, census.span.shape)) if not census.had(n)] == LOST
    voxels, missing = volume.read_checked(WHOLE)
    assert sorted(missing) == LOST
    fill = np.float64(volume.chunk_grid.fill)
    np.testing.assert_array_equal(voxels[4, :16, :16], np.full((16, 16), fill, voxels.dtype))
    assert (voxels[2:4] == 1).all()
    assert volume.read_checked(Box((2, 0, 0), (4, 40, 50)))[1] == []


def test_a_census_of_a_part_counts_that_part_and_outlasts_the_disk(tmp_path: Path) -> None:
    volume = volume_of(tmp_path / "a", "nested")
    census = take_census(volume, Box((3, 0, 0), (5, 20, 50)))
    assert (census.span, census.checked, census.absent) == (Box((1, 0, 0), (3, 2, 4)), 16, 1)
    assert (census.had((1, 1, 1)), census.had((2, 0, 0)), census.had((0, 0, 0))) == (True, False, False)
    census.write(tmp_path)
    again = read_census(tmp_path, census.digest)
    assert (again.span, again.absent, again.digest) == (census.span, 1, census.digest)
    (file,) = tmp_path.glob("chunks-*.bin")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(TargetError, match="cannot read the census of chunks"):
        read_census(tmp_path, census.digest)


@pytest.mark.parametrize("url", [False, True], ids=["folder", "object-store"])
def test_missing_chunks_of_a_source_that_is_gone_or_has_changed_are_not_read(
    tmp_path: Path, url: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_SECONDS", 0.0)
    volume = volume_of(tmp_path / "a", "nested", url=url)
    metadata = tmp_path / "a" / "zarr.json"
    metadata.write_text(metadata.read_text() + " ")
    with pytest.raises(SourceError, match="has changed"):
        volume.read(WHOLE)
    (tmp_path / "a").rename(tmp_path / "b")
    with pytest.raises(SourceError, match="is gone"):
        volume.read(WHOLE)


@pytest.mark.parametrize("kind", ["raw.h5", "raw.tif", "sections"])
def test_a_file_that_is_gone_or_changed_is_noticed(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_SECONDS", 0.0)
    path = tmp_path / kind
    if kind == "raw.h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["raw"] = np.ones((2, 8, 8), np.uint8)
    else:
        tifffile = pytest.importorskip("tifffile")
        files = [path] if kind == "raw.tif" else [path / f"{z}.tif" for z in range(2)]
        files[0].parent.mkdir(exist_ok=True)
        for file in files:
            tifffile.imwrite(
                file, np.ones((2, 8, 8) if kind == "raw.tif" else (8, 8), np.uint8), photometric="minisblack"
            )
    volume: Any = open_readable(str(path))
    volume.read(Box.of_shape(volume.shape))
    volume.confirm()
    touched = path / "1.tif" if path.is_dir() else path
    with touched.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(SourceError, match="has changed"):
        volume.confirm()
    touched.unlink()
    with pytest.raises(SourceError, match="is gone"):
        volume.confirm()


def test_a_section_that_changes_while_a_stack_is_decoded_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "raw.tif"
    tifffile.imwrite(path, np.ones((2, 8, 8), np.uint8), photometric="minisblack")

    def slabs(stack: Any) -> Any:
        with path.open("ab") as file:
            file.write(b"\0")
        yield stack.read(0, 2)

    monkeypatch.setattr(unpacked_stack, "_slabs", slabs)
    with pytest.raises(SourceError, match="has changed"):
        open_readable(str(path)).read(Box.of_shape((2, 8, 8)))


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"\xff", b'{"start": [0, 0, 0], "stop": 1}\n', b"[" * 100_000])
def test_a_damaged_census_is_refused_and_written_again(tmp_path: Path, damage: bytes) -> None:
    census = take_census(volume_of(tmp_path / "a", "nested"), WHOLE)
    census.write(tmp_path)
    (file,) = tmp_path.glob("chunks-*.bin")
    content = file.read_bytes()
    file.write_bytes(damage)
    with pytest.raises(TargetError, match="chunks-"):
        read_census(tmp_path, census.digest)
    census.write(tmp_path)
    assert file.read_bytes() == content
