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


def test_it_is_resumed_and_verified_from_its_record(raw: Path, small_model: Path) -> None:
    target, options = raw.parent / "map.zarr", {"model": str(small_model), **FAST}
    volseg.predict(str(raw), str(target), at_model_size="model", block=(1, 32, 48), **options)
    before = read_volume(target)
    shard = next(path for path in (target / "0" / "c").rglob("*") if path.is_file())
    shard.unlink()
    assert volseg.predict(str(raw), str(target), resume=True, **options).done == 1
    shard.write_bytes(shard.read_bytes()[:-9] + b"123456789")
    report = volseg.verify(str(target), repair=True, cluster="serial")
    assert report.repaired is not None
    assert report.repaired.blocks == 1
    np.testing.assert_array_equal(read_volume(target), before)
    report = volseg.verify(str(target), seams=True, cluster="serial")
    assert report.seams is not None
    assert report.seams["not_computed"] is None
    assert not report.seams["seamed"]
    with pytest.raises(ResumeError, match="voxel size"):
        volseg.predict(str(raw), str(target), resume=True, voxel_size=(40, 4, 8), **options)
    volseg.predict(str(raw), str(raw.parent / "plain.zarr"), ignore_voxel_size=True, **options)
    with pytest.raises(ResumeError, match="leave out --at-model-size"):
        volseg.predict(str(raw), str(raw.parent / "plain.zarr"), at_model_size="model", resume=True, **options)


def test_a_dry_run_says_both_sizes(raw: Path, small_model: Path) -> None:
    config = PredictConfig(
        source=str(raw), target=str(raw.parent / "map.zarr"), model=(str(small_model),), at_model_size="model", **FAST
    )
    estimate = estimate_run(*prepare(config))
    assert (estimate.shape, estimate.voxel_nm) == ((2, 64, 120), (40, 6, 6))
    assert estimate.resampled == "voxels of 40 x 4 x 9 nm resampled to 40 x 6 x 6 nm (mean and straight lines)"
    # Each chunk of 2 x 32 x 32 stored voxels is read once.
    assert estimate.bytes_to_read >= 2 * 96 * 96


def test_what_cannot_be_done_is_one_line(raw: Path, small_model: Path) -> None:
    options: dict[str, Any] = {"model": str(small_model), **FAST}
    with pytest.raises(ConfigError, match="volseg convert MAP TARGET --resample"):
        volseg.predict(str(raw), str(raw.parent / "map.zarr"), at_model_size="source", **options)
    unknown = make_volume(raw.parent / "unknown.zarr", SHAPE, voxel_nm=None)
    with pytest.raises(ConfigError, match="--at-model-size needs the voxel size.*--voxel-size"):
        volseg.predict(str(unknown), str(raw.parent / "map.zarr"), at_model_size="model", **options)
    far = make_volume(raw.parent / "far.zarr", SHAPE, voxel_nm=(30, 600, 6))
    with pytest.raises(ConfigError, match="--at-model-size: .*above 64"):
        volseg.predict(str(far), str(raw.parent / "map.zarr"), at_model_size="model", **options)
