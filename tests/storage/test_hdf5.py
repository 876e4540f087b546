"""HDF5: voxels as stored, mirrored beyond the edges; refusals name the datasets to choose from."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from volseg.blocks import Box
from volseg.errors import SourceError
from volseg.storage.hdf5 import is_hdf5, open_hdf5
from volseg.testing.factories import blobs

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (5, 20, 33)


def write_file(path: Path, **datasets: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, voxels in datasets.items():
            file.create_dataset(name.replace("__", "/"), data=voxels)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hdf5") / "raw.hdf"
    with h5py.File(path, "w") as file:
        file.create_dataset("volumes/raw", data=blobs(SHAPE), chunks=(2, 8, 8), compression="gzip")
    return path


PADDED = np.pad(blobs(SHAPE), 40, mode="reflect")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(*[st.integers(-40, 40)] * 3), st.tuples(*[st.integers(1, 9)] * 3))
def test_a_read_beyond_the_volume_is_mirrored(path: Path, start: tuple, size: tuple) -> None:
    start = tuple(min(a, n + 30) for a, n in zip(start, SHAPE, strict=True))
    stop = tuple(a + n for a, n in zip(start, size, strict=True))
    expected = PADDED[tuple(slice(a + 40, b + 40) for a, b in zip(start, stop, strict=True))]
    np.testing.assert_array_equal(open_hdf5(str(path)).read(Box(start, stop)), expected)


def test_shape_type_and_chunk_are_those_of_the_dataset_also_after_pickling(path: Path) -> None:
    for volume in (open_hdf5(f"{path}:volumes/raw"), pickle.loads(pickle.dumps(open_hdf5(str(path))))):
        assert (volume.shape, volume.dtype, volume.chunk, volume.voxel_nm) == (SHAPE, "uint8", (2, 8, 8), None)
        assert volume.location == f"{path.resolve()}:/volumes/raw"
        np.testing.assert_array_equal(volume.read(Box.of_shape(SHAPE)), blobs(SHAPE))


@pytest.mark.parametrize("dtype", [">u2", "<u2", ">f4", "bool"])
def test_voxels_have_the_byte_order_of_the_machine(tmp_path: Path, dtype: str) -> None:
    voxels = (blobs((2, 3, 4)) > 128) if dtype == "bool" else blobs((2, 3, 4)).astype(dtype)
    volume = open_hdf5(str(write_file(tmp_path / "a.h5", a=voxels)), ("uint16", "float32", "bool"))
    read = volume.read(Box.of_shape(volume.shape))
    assert read.dtype.isnative
    assert read.dtype.name == volume.dtype
    np.testing.assert_array_equal(read, voxels)


@pytest.mark.parametrize(
    ("name", "stated", "expected"),
    [
        ("resolution", [40.0, 4.0, 4.0], (40.0, 4.0, 4.0)),
        ("resolution", [40, 4, 4], (40.0, 4.0, 4.0)),
        ("element_size_um", [0.05, 0.004, 0.004], (50.0, 4.0, 4.0)),
        ("resolution", [0.0, 4.0, 4.0], None),
        ("resolution", [np.nan, 4.0, 4.0], None),
        ("resolution", "40 nm", None),
    ],
)
def test_the_voxel_size_is_read_in_nanometres(tmp_path: Path, name: str, stated: Any, expected: Any) -> None:
    file = write_file(tmp_path / "a.h5", a=blobs((2, 3, 4)))
    with h5py.File(file, "a") as opened:
        opened["a"].attrs[name] = stated
    voxel_nm = open_hdf5(str(file)).voxel_nm
    assert voxel_nm is None if expected is None else voxel_nm == pytest.approx(expected)


def test_the_only_volume_of_a_file_needs_no_name(tmp_path: Path) -> None:
    file = write_file(tmp_path / "a.h5", flat=np.zeros((4, 4)), deep__er=blobs((2, 3, 4)))
    assert open_hdf5(str(file)).location.endswith("a.h5:/deep/er")


@pytest.mark.parametrize(
    ("datasets", "name", "message"),
    [
        ({"raw": np.zeros((2, 3, 4), "u1"), "ids": np.zeros((2, 3, 4), "u8")}, "", r"several volumes; .*: ids, raw$"),
        ({"raw": np.zeros((2, 3, 4), "u1")}, ":labels", r"has no dataset labels .* after a colon: raw$"),
        ({"a": np.zeros((3, 4), "u1")}, "", "holds no dataset of three dimensions"),
        ({"a": np.zeros((3, 4), "u1")}, ":a", "holds no dataset of three dimensions"),
        ({"a": np.zeros((2, 3, 4))}, "", "a.h5:/a holds float64; supported types: uint8"),
    ],
)
def test_a_missing_or_ambiguous_name_is_refused_with_a_list(tmp_path: Path, datasets, name: str, message: str) -> None:
    file = write_file(tmp_path / "a.h5", **datasets)
    with pytest.raises(SourceError, match=message):
        open_hdf5(f"{file}{name}")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    for location, message in [
        (tmp_path / "none.h5", "none.h5 does not exist"),
        (tmp_path / "text.h5", "text.h5 cannot be read as HDF5"),
        ("s3://bucket/a.h5", "does not read HDF5 from URLs"),
    ]:
        with pytest.raises(SourceError, match=message):
            open_hdf5(str(location))


def test_a_folder_is_not_hdf5(tmp_path: Path) -> None:
    (tmp_path / "a.h5").mkdir()
    assert not is_hdf5(str(tmp_path / "a.h5"))
