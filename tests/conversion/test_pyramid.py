"""Levels that are added to images of any program: their voxels, places and metadata; stopped, lost and refused ones."""

from __future__ import annotations

import itertools
import json
import shutil
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorstore
import zarr
from click.testing import CliRunner

import volseg
from tests.conversion.volumes import tree
from volseg.cli.main import main
from volseg.conversion import plan
from volseg.errors import ConfigError, ResumeError, SourceError, SourceLostError, TargetError
from volseg.storage import open_volume
from volseg.storage.lock import locked
from volseg.storage.target import Target
from volseg.testing.factories import blobs, make_volume

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (7, 150, 170)
SIZE, START = (30.0, 6.0, 6.0), (300.0, 12.0, 0.0)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_LEAST_BYTES", 1)


def image(path: Path, voxels: np.ndarray, version: str = "0.5", finest: str = "s0", **options: Any) -> Path:
    """An OME-Zarr of one level, as zarr-python writes it."""
    v2, lead = version == "0.4", voxels.ndim - 3
    axes = [{"name": name, "type": kind} for name, kind in (("t", "time"), ("c", "channel"))][2 - lead :]
    axes += [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    transformations = [
        {"type": "scale", "scale": [1.0] * lead + [15.0, 3.0, 3.0]},
        {"type": "translation", "translation": [0.0] * lead + [150.0, 6.0, 0.0]},
    ]
    whole = [{"type": "scale", "scale": [1.0] * lead + [2.0] * 3}]
    multiscale = {
        "axes": axes,
        "datasets": [{"path": finest, "coordinateTransformations": transformations}],
        "coordinateTransformations": whole,
        "name": "of others",
    }
    ome = {"version": "0.5", "multiscales": [multiscale], "omero": {"channels": []}}
    attributes = {"multiscales": [multiscale | {"version": "0.4"}]} if v2 else {"ome": ome}
    group = zarr.open_group(path, mode="w", zarr_format=2 if v2 else 3, attributes=attributes | {"mine": [1]})
    if "/" in finest:
        group.require_group(finest.rpartition("/")[0])
    separator = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if v2 else {}
    chunks = (1,) * lead + (4, 32, 32)
    options = {"chunks": chunks, "fill_value": 0} | separator | options
    array = zarr.create_array(
        path / finest, shape=voxels.shape, dtype=voxels.dtype, zarr_format=2 if v2 else 3, **options
    )
    array[...] = voxels
    return path


def attributes_of(path: Path) -> dict[str, Any]:
    return zarr.open_group(path, mode="r", use_consolidated=False).attrs.asdict()


def datasets(path: Path) -> list[dict[str, Any]]:
    attributes = attributes_of(path)
    return attributes.get("ome", attributes)["multiscales"][0]["datasets"]


def levels(path: Path) -> list[np.ndarray]:
    return [np.asarray(zarr.open_array(path / one["path"], mode="r")[...]) for one in datasets(path)]


def assert_chain(path: Path, count: int, method: str) -> None:
    """Each level is what tensorstore makes of the finer one."""
    found = levels(path)
    assert len(found) == count + 1
    for fine, coarse in itertools.pairwise(found):
        factors = [min(2, -(-n // m)) for n, m in zip(fine.shape, coarse.shape, strict=True)]
        expected = tensorstore.downsample(tensorstore.array(fine), factors, method=method).read().result()
        assert coarse.dtype == fine.dtype
        assert (coarse == expected).all()


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
    array = zarr.open_array(path / "scale2/image", mode="r")
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
    group = zarr.open_group(path, mode="r", use_consolidated=True)
    assert sorted(group.array_keys()) == ["s0", "s1", "s2"]
    assert (group["s1"].shards, group["s2"].shards) == ((4, 32, 32), (4, 64, 64))
    assert_chain(path, 2, "mean")


def stop_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int) -> None:
    """Stop at a call of a function."""
    function, left = getattr(owner, name), [number]

    def call(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("at", [("write", 1), ("write", 3), ("write", 4), ("list", 0), ("remove", 0)])
def test_a_stopped_one_is_resumed_to_equal_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, at: tuple[str, int]
) -> None:
    voxels = blobs((4, 100, 128))
    whole, path = (image(tmp_path / name / "i.zarr", voxels, version) for name in ("whole", "stopped"))
    for one in (whole, path):
        volseg.pyramid(one, levels=1, cluster="serial")
    options = {"levels": 2, "cluster": "serial"}
    volseg.pyramid(whole, overwrite=True, **options)
    calls = {"write": (Target, "write"), "list": (volseg.conversion.pyramid, "list_levels")}
    owner, name = calls.get(at[0], (volseg.conversion.pyramid, "remove_level"))
    stop_at(monkeypatch, owner, name, at[1])
    with pytest.raises(KeyboardInterrupt):
        volseg.pyramid(path, overwrite=True, **options)
    monkeypatch.undo()
    if at[0] != "remove":
        assert [one["path"] for one in datasets(path)] == ["s0", "s1"]
        with pytest.raises(TargetError, match="unfinished levels of .* give --resume to finish them, or --overwrite"):
            volseg.pyramid(path, **options)
    assert volseg.pyramid(path, resume=True, cluster="serial").complete
    assert [one["path"] for one in datasets(path)] == ["s0", "s2", "s3"]
    found, expected = (
        {name: content for name, content in tree(one).items() if ".volseg" not in name} for one in (path, whole)
    )
    assert found == expected


@pytest.mark.parametrize("kind", ["lost", "cut", "changed", "coarse"])
def test_lost_and_changed_files_are_made_again(tmp_path: Path, kind: str) -> None:
    path = image(tmp_path / "i.zarr", blobs(SHAPE))
    volseg.pyramid(path, levels=3, cluster="serial")
    before = {name: content for name, content in tree(path).items() if ".volseg" not in name}
    file = path / ("s3" if kind == "coarse" else "s1") / "c/0/0/0"
    content = file.read_bytes()
    if kind in ("lost", "coarse"):
        file.unlink()
    else:
        file.write_bytes(content[:-9] if kind == "cut" else bytes([content[0] ^ 1]) + content[1:])
    done = volseg.pyramid(path, resume=True, check=kind == "changed", cluster="serial")
    assert done.complete
    assert done.done == {"coarse": 1}.get(kind, 3)
    assert {name: content for name, content in tree(path).items() if ".volseg" not in name} == before
    assert volseg.pyramid(path, resume=True, check=True, cluster="serial").done == 0


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
    monkeypatch.setattr(volseg.conversion.pyramid, "source_marks", lambda location: None)
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
    shutil.rmtree(path / "1")
