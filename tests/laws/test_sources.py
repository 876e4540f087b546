"""Law 10, and every format of a source: the same voxels give the same map, however they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner
from PIL import Image

import volseg
from volseg.cli.main import main
from volseg.cluster import NullProgress
from volseg.config import PredictConfig, validate
from volseg.errors import ConfigError, ResumeError, SourceError
from volseg.prediction.prepare import prepare
from volseg.prediction.run import execute
from volseg.storage import open_volume, read_record
from volseg.testing.doubles import address_of
from volseg.testing.factories import VOXEL_NM, read_volume

if TYPE_CHECKING:
    from volseg.cluster.dask_executor import DaskExecutor

COMMON: dict[str, Any] = {
    "halo": "exact", "device": "cpu", "precision": "float32", "cluster": "serial", "block": (2, 72, 92),
    "ignore_voxel_size": True,
}  # fmt: skip


def write(folder: Path, kind: str, voxels: np.ndarray) -> dict[str, Any]:
    """Write a volume in a format; returns the options that read it."""
    path = folder / kind
    if kind == "hdf5":
        with h5py.File(path.with_suffix(".h5"), "w") as file:
            file["a/raw"] = voxels
        return {"source": f"{path}.h5:a/raw"}
    if kind == "tiff":
        both = np.stack([voxels, voxels[::-1]], 1)
        tifffile.imwrite(path.with_suffix(".tif"), both, imagej=True, metadata={"axes": "ZCYX"})
        return {"source": f"{path}.tif", "channel": 0}
    if kind == "xyz":
        zarr.create_array(path, data=voxels.transpose(2, 1, 0), chunks=(32, 32, 2), dimension_names=["x", "y", "z"])
        return {"source": str(path), "axes": "x,y,z"}
    if kind == "big-endian":
        zarr.create_array(path, shape=voxels.shape, chunks=(2, 32, 32), dtype=">u2", zarr_format=2)[:] = voxels
        return {"source": str(path)}
    path.mkdir()
    for number, section in enumerate(voxels):
        Image.fromarray(section).save(path / f"{number}.png")
    return {"source": str(path)}


@pytest.fixture
def expected(raw: Path, tmp_path: Path, small_model: Path) -> np.ndarray:
    """The map of the volume in an OME-Zarr."""
    volseg.predict(str(raw), str(tmp_path / "expected.zarr"), model=str(small_model), **COMMON)
    return read_volume(tmp_path / "expected.zarr")


def test_every_format_gives_the_same_map(
    raw: Path, tmp_path: Path, small_model: Path, expected: np.ndarray, two_workers: DaskExecutor
) -> None:
    for kind in ("hdf5", "tiff", "xyz", "big-endian", "sections"):
        values = {**COMMON, **write(tmp_path, kind, read_volume(raw)), "target": str(tmp_path / f"{kind}.zarr")}
        values["model"] = str(small_model)
        if kind == "tiff":  # other processes decode the stack again, or find it decoded
            spec, recorded = prepare(validate(PredictConfig, {**values, "cluster": address_of(two_workers)}, "predict"))
            execute(spec, recorded, NullProgress())
        else:
            volseg.predict(**values)
        np.testing.assert_array_equal(read_volume(tmp_path / f"{kind}.zarr"), expected, err_msg=kind)
        options = read_record(tmp_path / f"{kind}.zarr").source.options
        assert (options.axes, options.channel) == (("x", "y", "z") if kind == "xyz" else None, {"tiff": "0"}.get(kind))


def test_a_resume_takes_the_axes_from_the_record_and_refuses_others(
    raw: Path, tmp_path: Path, small_model: Path
) -> None:
    values = {**COMMON, **write(tmp_path, "xyz", read_volume(raw)), "target": str(tmp_path / "map.zarr")}
    volseg.predict(**values, model=str(small_model))
    stated = values.pop("axes")
    assert volseg.predict(**values, model=str(small_model), resume=True).done == 0
    with pytest.raises(ResumeError, match=r"started with axes x,y,z,"):
        volseg.predict(**values, model=str(small_model), resume=True, axes="z,y,x")
    assert stated == "x,y,z"


def test_a_mask_is_read_from_hdf5(raw: Path, tmp_path: Path, small_model: Path, expected: np.ndarray) -> None:
    with h5py.File(tmp_path / "mask.h5", "w") as file:
        file["mask"] = np.arange(6)[:, None, None] // 2 == np.ones((1, 70, 90))
    target = tmp_path / "masked.zarr"
    volseg.predict(str(raw), str(target), model=str(small_model), mask=f"{tmp_path}/mask.h5:mask", **COMMON)
    np.testing.assert_array_equal(read_volume(target)[2:4], expected[2:4])
    assert not read_volume(target)[[0, 1, 4, 5]].any()


def test_what_opens_but_cannot_be_decoded_is_refused_before_a_run(raw: Path, tmp_path: Path, small_model: Path) -> None:
    for chunk in (raw / "0" / "c" / "0" / "0").iterdir():
        chunk.write_bytes(b"no chunk")
    values = {**COMMON, "source": str(raw), "target": str(tmp_path / "map.zarr"), "model": str(small_model)}
    with pytest.raises(SourceError, match="cannot read .*raw.zarr/0"):
        prepare(validate(PredictConfig, values, "predict"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": "blank"}, "--missing does not apply to"),
        ({"source": "{}/a.h5:raw", "scale_level": 1}, "--scale-level does not apply to"),
        ({"channel": 1}, "has no channel 1; choose from 0"),
        ({"axes": "c,z,y,x"}, "--axes c,z,y,x names 4 axes"),
    ],
)
def test_options_that_do_not_apply_to_a_source_are_refused(raw, tmp_path, small_model, options, message) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = read_volume(raw)
    values = {**COMMON, "source": str(raw), "target": str(tmp_path / "map.zarr"), "model": str(small_model), **options}
    values["source"] = values["source"].format(tmp_path)
    with pytest.raises(ConfigError, match=message):
        prepare(validate(PredictConfig, values, "predict"))


def test_convert_takes_axes_channel_and_missing_sections(raw: Path, tmp_path: Path) -> None:
    voxels = read_volume(raw)
    sections = write(tmp_path, "sections", voxels)["source"]
    (Path(sections) / "3.png").unlink()
    size = ",".join(map(str, VOXEL_NM))
    for kind, filled in (("xyz", None), ("tiff", None), ("sections", 2)):
        options = {"source": sections, "missing": "nearest"} if filled else write(tmp_path, kind, voxels)
        arguments = [str(options.pop("source")), str(tmp_path / f"{kind}.zarr"), "--voxel-size", size]
        result = CliRunner().invoke(
            main, ["convert", *arguments, *(part for k, v in options.items() for part in (f"--{k}", str(v)))]
        )
        assert result.exit_code == 0, result.output
        expected = voxels.copy()
        if filled:
            expected[3] = voxels[filled]
        volume = open_volume(str(tmp_path / f"{kind}.zarr"))
        np.testing.assert_array_equal(read_volume(tmp_path / f"{kind}.zarr"), expected)
        assert volume.voxel_nm == VOXEL_NM


def test_a_truth_of_mostly_membrane_is_warned_of(raw: Path, tmp_path: Path) -> None:
    truth = np.zeros((6, 70, 90), np.uint8)
    truth[:, :20] = 1
    zarr.create_array(tmp_path / "truth", data=truth)
    arguments = ["evaluate", str(raw), str(tmp_path / "truth"), "--pixels-only"]
    assert "Warning: 71% of the voxels" in CliRunner().invoke(main, arguments).stderr
    assert "Warning" not in CliRunner().invoke(main, [*arguments, "--membrane", "nonzero"]).stderr
