"""Levels that are added to images of any program: their voxels, places and metadata; and what is refused."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import volseg
from tests.conversion.images import SHAPE, SIZE, START, assert_chain, attributes_of, datasets, image, levels
from volseg.cli.main import main
from volseg.conversion import pyramid
from volseg.errors import ConfigError, ResumeError, SourceError, SourceLostError, TargetError
from volseg.storage import open_volume
from volseg.storage.lock import locked
from volseg.testing.factories import blobs, make_volume
from volseg.testing.targets import make_target, noise_record

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", ">u2"])
def test_levels_are_those_of_tensorstore(tmp_path: Path, version: str, dtype: str) -> None:
    if (version, dtype) == ("0.5", ">u2"):
        dtype = "uint16"
    voxels = blobs(SHAPE).astype(dtype) * 3
    voxels[:, :64, :64] = 0
    path = image(tmp_path / "i.zarr", voxels, version)
    done = volseg.pyramid(path, levels=4, cluster="serial")
    assert (done.complete, done.method, done.levels) == (True, "mean", ("s1", "s2", "s3", "s4"))
    assert_chain(path, 4, "mean")
    assert (levels(path)[0] == voxels).all()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_places_and_all_other_attributes(tmp_path: Path, version: str) -> None:
    path = image(tmp_path / "i.zarr", blobs(SHAPE), version, "scale0/image")
    before = attributes_of(path)
    assert volseg.pyramid(path, levels=3, cluster="serial").levels == tuple(f"scale{k}/image" for k in (1, 2, 3))
    for number, scale in enumerate([(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8)]):
        place = open_volume(str(path), level=number).place
        size = tuple(n * s for n, s in zip(SIZE, scale, strict=True))
        assert place.scale == size
        assert place.translation == tuple(t + (s - 1) / 2 * n for t, s, n in zip(START, scale, SIZE, strict=True))
    found = attributes_of(path)
    for attributes in (before, found):
        multiscale = attributes.get("ome", attributes)["multiscales"][0]
        del multiscale["datasets"][1:]
        multiscale.pop("type", None)
    assert found == before
    array: Any = zarr.open_array(path / "scale2/image", mode="r")
    assert array.shards is None
    assert array.metadata.zarr_format == (2 if version == "0.4" else 3)
    assert not (path / "scale1" / "image" / ".partial").exists()
    if version == "0.4":
        assert array.metadata.dimension_separator == "/"
    else:
        assert array.metadata.dimension_names == ("z", "y", "x")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_each_channel_and_time_is_kept(tmp_path: Path, version: str) -> None:
    voxels = np.stack([blobs(SHAPE), 255 - blobs(SHAPE, 1)])[None]
    path = image(tmp_path / "i.zarr", voxels, version)
    volseg.pyramid(path, levels=2, cluster="serial")
    assert [level.shape[:2] for level in levels(path)] == [(1, 2)] * 3
    assert_chain(path, 2, "mean")


@pytest.mark.parametrize("dtype", ["uint64", "uint32", "bool"])
def test_labels_take_the_most_frequent(tmp_path: Path, dtype: str) -> None:
    labels = (blobs(SHAPE) // 40).astype(dtype)
    path = image(tmp_path / "i.zarr", labels)
    assert volseg.pyramid(path, levels=1, cluster="serial").method == "mode"
    fine, coarse = levels(path)
    parts = [fine[:, y::2, x::2] for y in (0, 1) for x in (0, 1)]
    votes = np.array([sum((part == coarse).astype(int) for part in parts)])
    assert all((sum((part == other).astype(int) for part in parts) <= votes[0]).all() for other in parts)


def test_labels_by_their_group_and_by_the_option(tmp_path: Path) -> None:
    voxels = blobs(SHAPE) // 40
    (tmp_path / "labels").mkdir()
    inside = image(tmp_path / "labels" / "cells", voxels)
    assert volseg.pyramid(inside, levels=1, cluster="serial").method == "mode"
    assert volseg.pyramid(image(tmp_path / "i", voxels), levels=1, labels=True, cluster="serial").method == "mode"


def test_sharded_levels_and_consolidated_metadata(tmp_path: Path) -> None:
    path = image(tmp_path / "i.zarr", blobs(SHAPE), chunks=(4, 16, 16), shards=(4, 64, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Zarr 3 does not specify them
        zarr.consolidate_metadata(path)
    volseg.pyramid(path, levels=2, cluster="serial")
    group: Any = zarr.open_group(path, mode="r", use_consolidated=True)
    assert sorted(group.array_keys()) == ["s0", "s1", "s2"]
    assert (group["s1"].shards, group["s2"].shards) == ((4, 32, 32), (4, 64, 64))
    assert_chain(path, 2, "mean")
    volseg.pyramid(path, levels=1, overwrite=True, cluster="serial")
    group = zarr.open_group(path, mode="r", use_consolidated=True)
    assert sorted(group.array_keys()) == ["s0", "s3"]


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image(tmp_path / "i.zarr", blobs(SHAPE))
    with pytest.raises(SourceError, match="is one array"):
        volseg.pyramid(path / "s0")
    with pytest.raises(TargetError, match="is a URL"):
        volseg.pyramid("https://example.org/i.zarr")
    with pytest.raises(ConfigError, match="--check reads levels"):
        volseg.pyramid(path, check=True)
    with locked(path / "zarr.json", ""), pytest.raises(TargetError, match="another run is writing"):
        volseg.pyramid(path, levels=1, cluster="serial")
    monkeypatch.setattr(pyramid, "source_marks", lambda location: None)
    with pytest.raises(SourceLostError, match="changed while levels were made"):
        volseg.pyramid(path, levels=1, cluster="serial")
    monkeypatch.undo()
    assert len(datasets(path)) == 1
    volseg.pyramid(path, levels=1, overwrite=True, cluster="serial")
    with pytest.raises(TargetError, match="has coarser levels already"):
        volseg.pyramid(path, levels=2)
    zarr.open_array(path / "s0", mode="r+")[0, 0, 0] = 99
    with pytest.raises(ResumeError, match="has changed since"):
        volseg.pyramid(path, resume=True)


def test_missing_chunks_read_as_the_fill_value(tmp_path: Path) -> None:
    path = image(tmp_path / "i.zarr", blobs(SHAPE), fill_value=7)
    (path / "s0/c/0/0/0").unlink()
    with pytest.raises(SourceError, match="--missing-chunks fill"):
        volseg.pyramid(path, levels=1, missing_chunks="refuse", cluster="serial")
    done = volseg.pyramid(path, levels=1, cluster="serial")
    assert done.chunks_absent == 1
    assert (levels(path)[1][:4, :16, :16] == 7).all()


def test_an_own_volume_and_the_command(tmp_path: Path) -> None:
    path = make_volume(tmp_path / "raw.zarr", SHAPE)
    shown = CliRunner().invoke(main, ["pyramid", str(path), "--levels", "2", "--dry-run", "--json"])
    assert json.loads(shown.stdout)["levels"] == ["1", "2"]
    assert not (path / "1").exists()
    done = CliRunner().invoke(main, ["pyramid", str(path)])
    assert (done.exit_code, "viewers need no level" in done.stdout) == (0, True)
    done = CliRunner().invoke(main, ["pyramid", str(path), "--levels", "2", "--cluster", "serial"])
    assert (done.exit_code, "2 coarser levels (1, 2), mean" in done.stdout) == (0, True), done.output
    assert_chain(path, 2, "mean")


def test_the_map_of_a_prediction_is_sound_with_added_levels(tmp_path: Path) -> None:
    path = make_target(tmp_path / "t.zarr", noise_record((3, 40, 70), (1, 16, 32)), empty={17})
    assert volseg.pyramid(path, levels=2, cluster="serial").levels == ("1", "2")
    report = volseg.verify(str(path), deep=True, cluster="serial")
    assert (report.sound, report.complete, bool(report.warnings)) == (True, True, False)
    assert_chain(path, 2, "mean")


def test_maps_that_are_not_complete_or_have_levels_are_refused(tmp_path: Path) -> None:
    unfinished = make_target(tmp_path / "u.zarr", noise_record((3, 40, 70), (1, 16, 32)), unmarked={0})
    with pytest.raises(TargetError, match="is not complete: 26 of 27 blocks are done; finish it first"):
        volseg.pyramid(unfinished, levels=2)
    own = make_target(tmp_path / "o.zarr", noise_record(levels=((1, 2, 2),)))
    with pytest.raises(TargetError, match="are those of its run"):
        volseg.pyramid(own, levels=2, overwrite=True)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_images_of_ngff_zarr(tmp_path: Path, version: str) -> None:
    ngff = pytest.importorskip("ngff_zarr")
    with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"):  # not a client of another test
        warnings.simplefilter("ignore")
        one = ngff.to_ngff_image(blobs(SHAPE), dims=("z", "y", "x"), scale={"z": 30.0, "y": 6.0, "x": 6.0})
        ngff.to_ngff_zarr(str(tmp_path / "i.zarr"), ngff.to_multiscales(one, scale_factors=[]), version=version)
    finest = datasets(tmp_path / "i.zarr")[0]["path"]
    done = volseg.pyramid(tmp_path / "i.zarr", levels=2, cluster="serial")
    assert done.levels == tuple(finest.replace("0", str(k)) for k in (1, 2))
    assert_chain(tmp_path / "i.zarr", 2, "mean")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ngff.from_ngff_zarr(str(tmp_path / "i.zarr"))
    assert [image.data.shape for image in found.images] == [SHAPE, (7, 75, 85), (7, 38, 43)]


@pytest.mark.slow
def test_local_workers_make_the_same(tmp_path: Path) -> None:
    path, whole = (image(tmp_path / name, blobs(SHAPE)) for name in ("i.zarr", "whole.zarr"))
    volseg.pyramid(whole, levels=3, cluster="serial")
    assert volseg.pyramid(path, levels=3, cluster="local", workers=2).complete
    assert all((a == b).all() for a, b in zip(levels(path), levels(whole), strict=True))
