"""Stacks of sections become volumes of the same voxels, or are refused in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image

from volseg.cli.convert import convert
from volseg.errors import ConfigError, SourceError, TargetError
from volseg.storage import Place, convert_stack, is_stack, open_stack, open_volume
from volseg.testing.factories import blobs, read_volume

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_a_tiff_keeps_its_voxels_and_type(tmp_path: Path, dtype: str, compression: str | None) -> None:
    voxels = blobs((37, 40, 50), dtype=dtype)
    tifffile.imwrite(tmp_path / "stack.tif", voxels, compression=compression)
    progress: list[int] = []
    convert_stack(
        open_stack(tmp_path / "stack.tif"), tmp_path / "v.zarr", Place.of_nm((50.0, 4.0, 4.0)), progress.append
    )
    np.testing.assert_array_equal(read_volume(tmp_path / "v.zarr"), voxels)
    volume = open_volume(str(tmp_path / "v.zarr"))
    assert (volume.dtype, volume.voxel_nm) == (dtype, (50.0, 4.0, 4.0))
    assert progress == [32, 37]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_folder_is_read_in_natural_order(tmp_path: Path, suffix: str) -> None:
    voxels = np.stack([np.full((5, 6), z, np.uint8) for z in range(12)])
    folder = tmp_path / "sections"
    folder.mkdir()
    for z, section in enumerate(voxels):
        Image.fromarray(section).save(folder / f"section{z}{suffix}")
    (folder / "notes.txt").write_text("not a section")
    convert_stack(open_stack(folder), tmp_path / "v.zarr", Place.of_nm((8.0, 8.0, 8.0)))
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
        (lambda p: _folder(p / "empty"), "is not a Zarr, and holds no .tif, .tiff, .png or .jpg section"),
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
        convert_stack(open_stack(folder), tmp_path / "v.zarr", Place.of_nm((1.0, 1.0, 1.0)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sections"]


def test_an_existing_volume_is_kept(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((2, 8, 8), np.uint8), photometric="minisblack")
    _folder(tmp_path / "v.zarr")
    with pytest.raises(TargetError, match="v.zarr exists already"):
        convert_stack(open_stack(tmp_path / "s.tif"), tmp_path / "v.zarr", Place.of_nm((1.0, 1.0, 1.0)))


def test_overwrite_replaces_when_the_new_volume_is_complete(tmp_path: Path) -> None:
    old, new = blobs((2, 8, 8)), blobs((2, 8, 8), seed=1)
    for name, voxels in (("old.tif", old), ("new.tif", new)):
        tifffile.imwrite(tmp_path / name, voxels, photometric="minisblack")
    convert_stack(open_stack(tmp_path / "old.tif"), tmp_path / "v.zarr", Place.of_nm((1.0, 1.0, 1.0)))
    broken = open_stack(tmp_path / "new.tif")
    (tmp_path / "new.tif").rename(tmp_path / "moved.tif")
    with pytest.raises(SourceError):
        convert_stack(broken, tmp_path / "v.zarr", Place.of_nm((1.0, 1.0, 1.0)), overwrite=True)
    np.testing.assert_array_equal(read_volume(tmp_path / "v.zarr"), old)
    convert_stack(open_stack(tmp_path / "moved.tif"), tmp_path / "v.zarr", Place.of_nm((1.0, 1.0, 1.0)), overwrite=True)
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
    assert done.output.rstrip().endswith("voxels of 40 x 4 x 4 nm (z, y, x)"), done.output
    np.testing.assert_array_equal(read_volume(target), voxels)
    assert open_volume(str(target)).voxel_nm == (40.0, 4.0, 4.0)
    again = CliRunner().invoke(convert, [source, str(target), "--overwrite", "--voxel-size", "50,5,5"])
    assert again.exit_code == 0
    assert open_volume(str(target)).voxel_nm == (50.0, 5.0, 5.0)
