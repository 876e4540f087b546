"""Every file of ../shared/cases, as other programs write them, is read right or refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

from volseg.blocks import Box
from volseg.config.train_tables import DataSettings, TargetSettings
from volseg.errors import ConfigError, VolsegError
from volseg.storage import GREY, LABELS, ReadOptions, open_readable
from volseg.storage.axes import DEFAULT_OPTIONS
from volseg.training import open_labelled

CASES = Path(__file__).parents[3] / "shared" / "cases"
XYZ = ReadOptions(axes=("x", "y", "z"))
NM = (50.0, 4.0, 4.0)
READ: dict[str, tuple[ReadOptions, Any]] = {
    "tif_imagej.tif": (ReadOptions(), NM),
    "tif_ome.ome.tif": (ReadOptions(), NM),
    "tif_imagej4g.tif": (ReadOptions(), None),
    "tif_imagej_hyper.tif": (ReadOptions(channel=0), None),
    "z2_F.zarr": (ReadOptions(), None),
    "z2_be.zarr": (ReadOptions(), None),
    "z3_xyz.zarr": (XYZ, None),
    "daisyxyz.zarr/raw": (XYZ, NM),
    "oz05_xyz.zarr": (XYZ, NM),
    "oz05_xyz.zarr/0": (XYZ, NM),
    "oz05_2c.zarr": (ReadOptions(channel=0), NM),
    "oz05_trans.zarr": (ReadOptions(), NM),
    "bf2raw.zarr": (ReadOptions(), NM),
    "cellmap.zarr/recon-1/em/fibsem-uint8": (ReadOptions(), (5.24, 4.0, 4.0)),
    "nested2.zarr/volumes/raw": (ReadOptions(), NM),
    "ilastik5d.h5": (ReadOptions(), NM),
    "pre_raw": (ReadOptions(), NM),
    "pre_raw/4_4_50": (ReadOptions(), NM),
    "pre_raw_sh": (ReadOptions(), NM),
    "pre_cv": (ReadOptions(), NM),
    "v.n5": (ReadOptions(), NM),
    "v.n5/em": (ReadOptions(), NM),
    "v.mrc": (ReadOptions(), NM),
    "v.nrrd": (ReadOptions(), NM),
    "v.nii.gz": (ReadOptions(), NM),
    "v.zarr.zip": (ReadOptions(), None),
    "wk_wkw": (ReadOptions(), NM),
    "wk_wkw/color/1": (ReadOptions(), NM),
    "wk_zarr3": (ReadOptions(), NM),
    "wk_zarr3/color": (ReadOptions(), NM),
    "wk_zarr3/color/1": (XYZ, NM),
}
"""Of what is `ref.npy`: the way to read it, and the voxel size that must be known."""
REFUSED = {
    "tif_imagej_hyper.tif": r"holds 2 channels .* --channel",
    "z3_xyz.zarr": "axes x, y, z, .* --axes x,y,z",
    "daisyxyz.zarr": "such as .*/daisyxyz.zarr/raw: raw",
    "daisyxyz.zarr/raw": "axes x, y, z, .* --axes x,y,z",
    "oz05_xyz.zarr": "axes x, y, z, .* --axes x,y,z",
    "oz05_xyz.zarr/0": "axes x, y, z, .* --axes x,y,z",
    "oz05_2c.zarr": r"holds 2 channels .* --channel",
    "cellmap.zarr": "such as .*/cellmap.zarr/recon-1/em/fibsem-uint8: recon-1/em/fibsem-uint8",
    "nested2.zarr": "such as .*/nested2.zarr/volumes/raw: volumes/raw",
    "small/two_times.tif": r"holds 2 times .* --channel",
    "small/two_channels.ome.tif": r"holds 2 channels .* --channel",
    "small/xyz_names.zarr": "axes x, y, z, .* --axes x,y,z",
}

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases")


def voxels(name: str, options: ReadOptions = DEFAULT_OPTIONS, dtypes: tuple[str, ...] = GREY) -> np.ndarray:
    volume = open_readable(str(CASES / name), dtypes, options)
    return volume.read(Box.of_shape(volume.shape))


@pytest.mark.parametrize("name", READ)
def test_a_volume_of_another_program_is_read_right(name: str) -> None:
    options, voxel_nm = READ[name]
    volume = open_readable(str(CASES / name), options=options)
    np.testing.assert_array_equal(volume.read(Box.of_shape(volume.shape)), np.load(CASES / "ref.npy"))
    assert voxel_nm is None or volume.voxel_nm == pytest.approx(voxel_nm)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_in_one_line_with_a_way_out(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(VolsegError, match=REFUSED[name]) as caught:
        open_readable(str(CASES / name))
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_images_are_read_as_shown_and_labels_as_stored() -> None:
    ref = np.load(CASES / "ref.npy")
    images = [Image.open(path) for path in sorted((CASES / "folder_pngpal").iterdir())]
    np.testing.assert_array_equal(voxels("folder_pngpal"), np.stack([image.convert("L") for image in images]))
    np.testing.assert_array_equal(voxels("folder_pngpal", dtypes=LABELS), np.stack(images))
    np.testing.assert_array_equal(voxels("tif_miniswhite.tif"), 255 - voxels("tif_miniswhite.tif", dtypes=LABELS))
    for name, loss in (("folder_jpg", 3), ("folder_jpg/*.jpg", 3), ("pre_jpeg", 6)):
        assert np.abs(voxels(name).astype(int) - ref).mean() < loss
    with pytest.raises(VolsegError, match="values are not exact"):
        voxels("pre_jpeg", dtypes=LABELS)


@pytest.mark.parametrize(
    ("name", "translation_nm"),
    [
        ("pre_raw", (500.0, 800.0, 400.0)),
        ("pre_raw_sh", (500.0, 800.0, 400.0)),
        ("pre_jpeg", (500.0, 800.0, 400.0)),
        ("wk_wkw", (150.0, 512.0, 256.0)),
        ("wk_zarr3", (150.0, 512.0, 256.0)),
        ("oz05_trans.zarr", (1000.0, 400.0, 800.0)),
        ("v.mrc", (0.0, 0.0, 0.0)),
    ],
)
def test_a_volume_is_read_at_its_place(name: str, translation_nm: tuple[float, float, float]) -> None:
    assert open_readable(str(CASES / name)).translation_nm == pytest.approx(translation_nm)


def test_small_arrays_of_other_byte_and_memory_orders_are_not_empty() -> None:
    assert voxels("small/be_f4.zarr").dtype == np.float32
    assert voxels("small/be_u4_labels.zarr", dtypes=LABELS).dtype == np.uint32
    for name in ("small/be_f4.zarr", "small/order_F.zarr", "small/nested_no_separator.zarr"):
        assert len(np.unique(voxels(name))) > 1, name


@pytest.mark.parametrize("name", ["island.zarr", "moved.zarr", "mic.zarr", "nan_section.zarr"])
def test_other_small_volumes_open(name: str) -> None:
    assert open_readable(str(CASES / "small" / name)).dtype in ("uint8", "float32")


def test_labels_of_which_one_class_is_known_are_refused(tmp_path: Path) -> None:
    labels = str(CASES / "small" / "allneg.zarr")
    data = DataSettings(raw=labels, labels=labels, train=(0, 6), voxel_nm=NM)
    raw = np.zeros((6, 128, 160), np.uint8)

    zarr.create_array(tmp_path / "raw.zarr", data=raw)
    with pytest.raises(ConfigError, match="100% membrane in all sections"):
        open_labelled(data.model_copy(update={"raw": str(tmp_path / "raw.zarr")}), TargetSettings())


def test_every_case_is_tested() -> None:
    tested = {name.split("/")[0] for name in (*READ, *REFUSED)} | {
        "folder_jpg",
        "folder_pngpal",
        "tif_miniswhite.tif",
        "pre_jpeg",
    }
    assert {path.name for path in CASES.iterdir()} - {"README.md", "ref.npy"} == tested
