"""Stacks of sections become volumes of the same voxels, or are refused in one line; types change within limits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image

import volseg
from volseg.cli.convert import convert
from volseg.errors import ConfigError, SourceError, TargetError
from volseg.storage import is_stack, open_stack, open_target, open_volume
from volseg.testing.factories import blobs, read_volume

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_a_tiff_keeps_its_voxels_and_type(tmp_path: Path, dtype: str, compression: str | None) -> None:
    voxels = blobs((37, 40, 50), dtype=dtype)
    tifffile.imwrite(tmp_path / "stack.tif", voxels, compression=compression)
    volseg.convert(str(tmp_path / "stack.tif"), tmp_path / "v.zarr", voxel_size=(50.0, 4.0, 4.0))
    np.testing.assert_array_equal(read_volume(tmp_path / "v.zarr"), voxels)
    volume = open_volume(str(tmp_path / "v.zarr"))
    assert (volume.dtype, volume.voxel_nm) == (dtype, (50.0, 4.0, 4.0))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_folder_is_read_in_natural_order(tmp_path: Path, suffix: str) -> None:
    voxels = np.stack([np.full((5, 6), z, np.uint8) for z in range(12)])
    folder = tmp_path / "sections"
    folder.mkdir()
    for z, section in enumerate(voxels):
        Image.fromarray(section).save(folder / f"section{z}{suffix}")
    (folder / "notes.txt").write_text("not a section")
    volseg.convert(str(folder), tmp_path / "v.zarr", voxel_size=(8.0, 8.0, 8.0))
    np.testing.assert_array_equal(read_volume(tmp_path / "v.zarr"), voxels)


def test_sixteen_bit_pngs_keep_their_values(tmp_path: Path) -> None:
    section = np.arange(0, 60_000, 1000, dtype=np.uint16).reshape(6, 10)
    Image.fromarray(section).save(tmp_path / "a.png")
    assert open_stack(tmp_path).dtype == "uint16"
    np.testing.assert_array_equal(open_stack(tmp_path).read(0, 1)[0], section)


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _colour(path: Path) -> Path:
    tifffile.imwrite(path, np.zeros((4, 5, 3), np.uint8), photometric="rgb")
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "none.tif", "none.tif does not exist"),
        (lambda p: _write(p / "a.tif", b"no tiff"), "a.tif cannot be read as a TIFF"),
        (lambda p: _write(p / "a.nd2", b"x"), "neither a TIFF .* nor a folder"),
        (lambda p: _colour(p / "rgb.tif"), "must be grey"),
        (lambda p: _folder(p / "empty"), "is not a Zarr, and holds no .tif, .tiff, .png, .jpg or .bmp section"),
    ],
)
def test_other_paths_are_refused(tmp_path: Path, make, message) -> None:
    with pytest.raises(SourceError, match=message):
        open_stack(make(tmp_path))


def test_another_data_type_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "d.tif", np.zeros((2, 8, 8)), photometric="minisblack")
    with pytest.raises(SourceError, match="holds float64; supported types: uint8"):
        open_stack(tmp_path / "d.tif")


def test_a_section_of_another_size_is_named_and_no_file_is_left(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "sections")
    for z, width in enumerate((6, 6, 7)):
        Image.fromarray(np.zeros((5, width), np.uint8)).save(folder / f"s{z}.png")
    with pytest.raises(SourceError, match=r"s2.png is \(5, 7\) uint8, but the first section is \(5, 6\)"):
        volseg.convert(str(folder), tmp_path / "v.zarr", voxel_size=(1.0, 1.0, 1.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sections"]


def test_an_existing_volume_is_kept(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((2, 8, 8), np.uint8), photometric="minisblack")
    _folder(tmp_path / "v.zarr")
    with pytest.raises(TargetError, match="v.zarr exists already"):
        volseg.convert(str(tmp_path / "s.tif"), tmp_path / "v.zarr", voxel_size=(1.0, 1.0, 1.0))


def test_overwrite_replaces_when_the_new_volume_is_complete(tmp_path: Path) -> None:
    old, new = blobs((2, 8, 8)), blobs((2, 8, 8), seed=1)
    for name, voxels in (("old.tif", old), ("new.tif", new)):
        tifffile.imwrite(tmp_path / name, voxels, photometric="minisblack")
    options = {"voxel_size": (1.0, 1.0, 1.0), "overwrite": True}
    volseg.convert(str(tmp_path / "old.tif"), tmp_path / "v.zarr", **options)
    (tmp_path / "broken.tif").write_bytes((tmp_path / "new.tif").read_bytes()[:-70])
    with pytest.raises(SourceError):
        volseg.convert(str(tmp_path / "broken.tif"), tmp_path / "v.zarr", **options)
    np.testing.assert_array_equal(read_volume(tmp_path / "v.zarr"), old)
    volseg.convert(str(tmp_path / "new.tif"), tmp_path / "v.zarr", **options)
    np.testing.assert_array_equal(read_volume(tmp_path / "v.zarr"), new)


def test_a_zarr_is_not_a_folder_of_sections(raw: Path) -> None:
    assert not is_stack(raw)
    assert is_stack(raw.parent)


def test_a_dataset_of_hdf5_keeps_its_voxels_and_states_its_voxel_size(tmp_path: Path) -> None:
    voxels = blobs((37, 40, 50), dtype="uint16")
    with h5py.File(tmp_path / "sample.hdf", "w") as file:
        file["volumes/raw"] = voxels
        file["volumes/labels"] = voxels
        file["volumes/raw"].attrs["resolution"] = (40.0, 4.0, 4.0)
    source, target = f"{tmp_path}/sample.hdf:volumes/raw", tmp_path / "v.zarr"
    refused = CliRunner().invoke(convert, [f"{tmp_path}/sample.hdf:volumes/labels", str(target)])
    assert isinstance(refused.exception, ConfigError)
    assert "volumes/labels states no voxel size; give --voxel-size" in str(refused.exception)
    done = CliRunner().invoke(convert, [source, str(target)])
    assert "voxels of 40 x 4 x 4 nm (z, y, x)" in done.output, done.output
    np.testing.assert_array_equal(read_volume(target), voxels)
    assert open_volume(str(target)).voxel_nm == (40.0, 4.0, 4.0)
    again = CliRunner().invoke(convert, [source, str(target), "--overwrite", "--voxel-size", "50,5,5"])
    assert again.exit_code == 0
    assert open_volume(str(target)).voxel_nm == (50.0, 5.0, 5.0)


GREYS = np.uint16([[[0, 99, 100, 101, 227, 354, 355, 60_000]]])


def test_grey_values_are_scaled_between_stated_limits_and_what_lies_outside_is_counted(here: Path) -> None:
    tifffile.imwrite("s.tif", GREYS, photometric="minisblack")
    done = CliRunner().invoke(
        convert, ["s.tif", "v.zarr", "--voxel-size", "8,8,8", "--dtype", "uint8", "--range", "100,355"]
    )
    assert done.exit_code == 0, done.output
    assert "uint16 as uint8, 100 to 355 scaled to 0 to 255" in done.stderr
    assert "3 voxels (37.50%) lay outside of --range" in done.stderr
    assert read_volume(here / "v.zarr").tolist() == [[[0, 0, 0, 1, 127, 254, 255, 255]]]
    record = json.loads((here / "v.zarr/zarr.json").read_bytes())["attributes"]["volseg_conversion"]
    assert record["output"]["limits"] == [100.0, 355.0]


def test_without_limits_those_of_the_type_count_and_nothing_is_clipped(here: Path) -> None:
    tifffile.imwrite("s.tif", GREYS, photometric="minisblack")
    done = volseg.convert("s.tif", "v.zarr", voxel_size=(8, 8, 8), dtype="uint8")
    assert done.clipped == 0
    np.testing.assert_array_equal(read_volume(here / "v.zarr"), np.rint(GREYS / 257).astype(np.uint8))


def test_labels_keep_their_numbers_or_the_type_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volseg.cluster.policy.FIRST_BACKOFF", 0.0)
    with h5py.File("l.h5", "w") as file:
        file["ids"] = np.uint64([[[1, 2, 2**32 - 1]]])
        file["large"] = np.uint64([[[1, 2, 2**32]]])
        file["mask"] = np.bool_([[[True, False, True]]])
    options = {"voxel_size": (8, 8, 8)}
    volseg.convert("l.h5:ids", "v.zarr", dtype="uint32", **options)
    assert np.asarray(open_target(here / "v.zarr")._array[:]).tolist() == [[[1, 2, 2**32 - 1]]]
    volseg.convert("l.h5:mask", "m.zarr", **options)
    assert np.asarray(open_target(here / "m.zarr")._array[:]).tolist() == [[[True, False, True]]]
    with pytest.raises(ConfigError, match="--range needs grey values"):
        volseg.convert("l.h5:ids", "w.zarr", dtype="uint8", range=(0, 9), **options)
    done = volseg.convert("l.h5:large", "w.zarr", dtype="uint32", **options)
    assert not done.complete
    assert "holds 4294967296, which uint32 does not hold; choose a larger --dtype" in done.failed[0]
    assert not (here / "w.zarr").exists()


def test_nan_is_counted_and_floats_need_limits(here: Path) -> None:
    tifffile.imwrite("s.tif", np.float32([[[np.nan, 0.0, 0.5, 1.0]]]), photometric="minisblack")
    options = {"voxel_size": (8, 8, 8), "dtype": "uint8"}
    with pytest.raises(ConfigError, match="needs limits; give --range LOW,HIGH"):
        volseg.convert("s.tif", "v.zarr", **options)
    done = volseg.convert("s.tif", "v.zarr", range=(0, 1), **options)
    assert done.clipped == 1
    assert read_volume(here / "v.zarr").tolist() == [[[0, 0, 128, 255]]]


def test_a_dry_run_writes_nothing(here: Path) -> None:
    tifffile.imwrite("s.tif", blobs((20, 40, 50)), photometric="minisblack")
    done = CliRunner().invoke(convert, ["s.tif", "v.zarr", "--voxel-size", "8,8,8", "--dry-run", "--json"])
    plan = json.loads(done.stdout)
    assert (plan["shape"], plan["format"], plan["bytes_of_voxels"]) == ([20, 40, 50], "ome-zarr", 40_000)
    assert [path.name for path in here.iterdir()] == ["s.tif"]


@pytest.mark.parametrize("cluster", ["serial", pytest.param("local", marks=pytest.mark.slow)])
def test_every_cluster_gives_the_same_bytes(here: Path, cluster: str) -> None:
    voxels = blobs((24, 40, 50))
    tifffile.imwrite("s.tif", voxels, photometric="minisblack")
    options = {"voxel_size": (8.0, 8.0, 8.0), "chunk": (8, 16, 16), "shard": (8, 32, 32)}
    done = volseg.convert("s.tif", "v.zarr", cluster=cluster, workers=1 if cluster == "local" else None, **options)
    assert (done.blocks, done.complete) == (3, True)
    np.testing.assert_array_equal(read_volume(here / "v.zarr"), voxels)
