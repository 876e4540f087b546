"""Real EM goes through the journey: converted voxel for voxel, mapped without seams, scored against its truth."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from volseg.cli.main import main
from volseg.models.model import load_model_file
from volseg.storage import open_volume
from volseg.testing.factories import read_volume, whole_pass

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("file", "voxel_nm", "shape"),
    [
        ("isbi2012/train-volume.tif", "50,4,4", (30, 512, 512)),
        ("isbi2012/test-volume.tif", "50,4,4", (30, 512, 512)),
        ("snemi3d/train-input.tif", "30,6,6", (100, 1024, 1024)),
    ],
)
def test_real_stacks_are_converted_voxel_for_voxel(
    shared_data: Path, tmp_path: Path, file: str, voxel_nm: str, shape: tuple[int, int, int]
) -> None:
    run("convert", str(shared_data / file), str(tmp_path / "raw.zarr"), "--voxel-size", voxel_nm)
    volume = open_volume(str(tmp_path / "raw.zarr"))
    assert (volume.shape, volume.dtype) == (shape, "uint8")
    assert volume.voxel_nm == tuple(float(size) for size in voxel_nm.split(","))
    np.testing.assert_array_equal(read_volume(tmp_path / "raw.zarr"), tifffile.imread(shared_data / file))


def test_real_em_is_mapped_without_seams_and_scored(shared_data: Path, small_model: Path, tmp_path: Path) -> None:
    raw, labels = (
        tifffile.imread(shared_data / "isbi2012" / f"train-{kind}.tif")[24:26] for kind in ("volume", "labels")
    )
    for name, voxels in (("raw", raw), ("labels", labels)):
        tifffile.imwrite(tmp_path / f"{name}.tif", voxels, photometric="minisblack")
    run("convert", str(tmp_path / "raw.tif"), str(tmp_path / "raw.zarr"), "--voxel-size", "50,4,4")
    run("predict", str(tmp_path / "raw.zarr"), str(tmp_path / "map.zarr"), "--model", str(small_model),
        "--ignore-voxel-size", "--precision", "float32", "--block", "1,192,256", "--cluster", "serial")  # fmt: skip
    steps = np.abs(read_volume(tmp_path / "map.zarr") - whole_pass(load_model_file(small_model), raw) * 255)
    assert steps.max() <= 1
    scores = json.loads(run("evaluate", str(tmp_path / "map.zarr"), str(tmp_path / "labels.tif"), "--json"))
    assert scores["membrane_share"] == pytest.approx((labels == 0).mean())
