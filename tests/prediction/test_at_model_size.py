"""A map at the model's voxel size is that of the volume resampled first, in any blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import volseg
from volseg.config import PredictConfig
from volseg.errors import ConfigError, ResumeError
from volseg.ops import Resampling
from volseg.prediction.dry_run import estimate_run
from volseg.prediction.prepare import prepare
from volseg.storage import open_volume, read_record
from volseg.testing.factories import VOXEL_NM, make_volume, read_volume

if TYPE_CHECKING:
    from pathlib import Path

SHAPE, STORED = (2, 96, 80), (40.0, 4.0, 9.0)
FAST: dict[str, Any] = {"cluster": "serial", "device": "cpu", "precision": "float32", "halo": "exact"}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make_volume(tmp_path / "raw.zarr", SHAPE, voxel_nm=STORED, translation_nm=(400, 40, 90))


def test_it_is_the_map_of_the_volume_resampled_first_in_any_blocks(raw: Path, small_model: Path) -> None:
    size = (STORED[0], *VOXEL_NM[1:])  # the network sees single sections: these stay
    volseg.convert(str(raw), raw.parent / "first.zarr", resample=size, cluster="serial")
    options: dict[str, Any] = {"model": str(small_model), **FAST}
    volseg.predict(str(raw.parent / "first.zarr"), str(raw.parent / "a.zarr"), **options)
    expected = read_volume(raw.parent / "a.zarr").astype(int)
    for name, block in (("b", (2, 128, 128)), ("c", (1, 32, 48))):
        target = raw.parent / f"{name}.zarr"
        done = volseg.predict(str(raw), str(target), at_model_size="model", block=block, **options)
        assert (done.blocks, done.failed) == (1 if name == "b" else 12, {})
        assert abs(read_volume(target) - expected).max() <= 1
        assert open_volume(str(target)).place == open_volume(str(raw.parent / "first.zarr")).place
    assert np.ptp(expected) > 8
    source = read_record(raw.parent / "c.zarr").source
    assert (source.shape, source.voxel_nm, source.translation_nm) == ((2, 64, 120), size, (400, 41, 88.5))
    assert source.resampling == Resampling(STORED, size)


def test_the_map_at_the_source_size_is_the_other_one_resampled_back_in_any_blocks(raw: Path, small_model: Path) -> None:
    options: dict[str, Any] = {"model": str(small_model), **FAST}
    volseg.predict(str(raw), str(raw.parent / "a.zarr"), at_model_size="model", **options)
    volseg.convert(str(raw.parent / "a.zarr"), raw.parent / "back.zarr", resample=STORED, cluster="serial")
    expected = read_volume(raw.parent / "back.zarr")[:, :, :80].astype(int)
    found = []
    for name, block in (("b", (2, 128, 128)), ("c", (1, 40, 24)), ("d", (2, 10, 96))):
        target = raw.parent / f"{name}.zarr"
        done = volseg.predict(str(raw), str(target), at_model_size="source", block=block, **options)
        assert (done.blocks, done.failed) == ({"b": 1, "c": 24, "d": 10}[name], {})
        assert open_volume(str(target)).place == open_volume(str(raw)).place
        found.append(read_volume(target))
        np.testing.assert_array_equal(found[-1], found[0])
    assert abs(found[0] - expected).max() <= 1
    assert np.ptp(expected) > 8
    written = read_record(raw.parent / "c.zarr").settings.map
    assert written is not None
    assert written.resampling == Resampling((STORED[0], *VOXEL_NM[1:]), STORED)


def test_a_mask_and_a_region_are_those_of_the_map(raw: Path, small_model: Path) -> None:
    options: dict[str, Any] = {"model": str(small_model), "at_model_size": "source", "block": (1, 32, 16), **FAST}
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[1, 40:60, 20:30] = 1
    mask = make_volume(raw.parent / "mask.zarr", SHAPE, voxels=voxels, voxel_nm=STORED)
    done = volseg.predict(str(raw), str(raw.parent / "masked.zarr"), mask=str(mask), **options)
    assert (done.done, done.skipped["outside the mask"]) == (1, 29)
    rows, columns = np.nonzero(read_volume(raw.parent / "masked.zarr")[1])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (32, 63, 16, 31)
    done = volseg.predict(str(raw), str(raw.parent / "part.zarr"), roi="1:2,32:64,16:32", **options)
    # The constants are those of the same part, so that the voxels are equal.
    np.testing.assert_array_equal(read_volume(raw.parent / "part.zarr"), read_volume(raw.parent / "masked.zarr"))


@pytest.mark.parametrize("size", ["model", "source"])
def test_it_is_resumed_and_verified_from_its_record(raw: Path, small_model: Path, size: str) -> None:
    target, options = raw.parent / "map.zarr", {"model": str(small_model), **FAST}
    volseg.predict(str(raw), str(target), at_model_size=size, block=(1, 32, 48), **options)
    before, place = read_volume(target), open_volume(str(target)).place
    shard = next(path for path in (target / "0" / "c").rglob("*") if path.is_file())
    shard.unlink()
    assert volseg.predict(str(raw), str(target), resume=True, **options).done == 1
    shard.write_bytes(shard.read_bytes()[:-9] + b"123456789")
    report = volseg.verify(str(target), repair=True, cluster="serial")
    assert report.repaired is not None
    assert report.repaired.blocks == 1
    assert report.repaired.metadata == ()
    (target / "0" / "zarr.json").unlink()
    (target / "zarr.json").write_text((target / "zarr.json").read_text().replace('"translation"', '"translated"', 1))
    assert volseg.verify(str(target), repair=True, cluster="serial").sound
    assert open_volume(str(target)).place == place
    np.testing.assert_array_equal(read_volume(target), before)
    report = volseg.verify(str(target), seams=True, cluster="serial")
    assert report.seams is not None
    assert report.seams["not_computed"] is None
    assert not report.seams["seamed"]
    with pytest.raises(ResumeError, match="voxel size"):
        volseg.predict(str(raw), str(target), resume=True, voxel_size=(40, 4, 8), **options)
    volseg.predict(str(raw), str(raw.parent / "plain.zarr"), ignore_voxel_size=True, **options)
    with pytest.raises(ResumeError, match="leave out --at-model-size"):
        volseg.predict(str(raw), str(raw.parent / "plain.zarr"), at_model_size=size, resume=True, **options)
    other = {"model": "source", "source": "model"}[size]
    with pytest.raises(ResumeError, match=f"with the voxels of the {size}, not of the {other}; leave out"):
        volseg.predict(str(raw), str(target), at_model_size=other, resume=True, **options)


def test_a_dry_run_says_both_sizes(raw: Path, small_model: Path) -> None:
    config = PredictConfig(
        source=str(raw), target=str(raw.parent / "map.zarr"), model=(str(small_model),), at_model_size="model", **FAST
    )
    estimate = estimate_run(*prepare(config))
    assert (estimate.shape, estimate.voxel_nm) == ((2, 64, 120), (40, 6, 6))
    assert estimate.resampled == "voxels of 40 x 4 x 9 nm resampled to 40 x 6 x 6 nm (mean and straight lines)"
    # Each chunk of 2 x 32 x 32 stored voxels is read once.
    assert estimate.bytes_to_read >= 2 * 96 * 96
    estimate = estimate_run(*prepare(config.model_copy(update={"at_model_size": "source"})))
    assert (estimate.shape, estimate.voxel_nm) == (SHAPE, STORED)
    assert estimate.resampled is not None
    assert estimate.resampled.endswith(", and the map back")


def test_what_cannot_be_done_is_one_line(raw: Path, small_model: Path) -> None:
    options: dict[str, Any] = {"model": str(small_model), **FAST}
    unknown = make_volume(raw.parent / "unknown.zarr", SHAPE, voxel_nm=None)
    with pytest.raises(ConfigError, match="--at-model-size needs the voxel size.*--voxel-size"):
        volseg.predict(str(unknown), str(raw.parent / "map.zarr"), at_model_size="model", **options)
    far = make_volume(raw.parent / "far.zarr", SHAPE, voxel_nm=(30, 600, 6))
    with pytest.raises(ConfigError, match="--at-model-size: .*above 64"):
        volseg.predict(str(far), str(raw.parent / "map.zarr"), at_model_size="model", **options)
