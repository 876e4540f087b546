"""Coarser levels: each is made of the finer one, lies at its place, and is resumed, verified and repaired like it."""

from __future__ import annotations

import json
import random
import shutil
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import volseg
from volseg.blocks import coarser_place
from volseg.cli.main import main
from volseg.errors import BlockError
from volseg.ops import downsample_mean
from volseg.prediction import worker
from volseg.storage import Target, read_marks, read_record
from volseg.testing.factories import blobs, make_model, make_volume
from volseg.testing.journals import keep_marks

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Box

SHAPE, BLOCK = (4, 80, 96), (2, 16, 16)
OPTIONS = {
    "block": BLOCK, "levels": 4, "cluster": "serial", "ignore_voxel_size": True, "halo": (0, 8, 8),
    "tile": (1, 16, 16), "precision": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    voxels = blobs(SHAPE)
    voxels[:, :72, :72] = 0
    raw = make_volume(folder / "raw.zarr", SHAPE, voxels=voxels, chunk=(1, 16, 16))
    return raw, make_model(folder / "model.safetensors")


@pytest.fixture(scope="module")
def finished(inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("finished") / "map.zarr"
    volseg.predict(inputs[0], target, model=inputs[1], **OPTIONS)
    return target


def contents(target: Path) -> dict[str, bytes]:
    """The shards of all levels."""
    return {
        str(file.relative_to(target)): file.read_bytes()
        for file in sorted(target.rglob("*"))
        if file.is_file() and "/c/" in str(file)
    }


def levels_of(group: Path) -> list[NDArray[Any]]:
    attributes: Any = zarr.open_group(group, mode="r").attrs
    datasets = attributes["ome"]["multiscales"][0]["datasets"]
    return [np.asarray(zarr.open_array(group / dataset["path"], mode="r")[...]) for dataset in datasets]


def assert_levels(group: Path, factors: tuple[tuple[int, int, int], ...]) -> None:
    """Each level is the mean of the finer one."""
    levels = levels_of(group)
    assert len(levels) == len(factors) + 1
    for fine, coarse, factor in zip(levels, levels[1:], factors, strict=False):
        assert (coarse == downsample_mean(fine, (1,) * (fine.ndim - 3) + factor)).all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                {"roi": "0:2,20:79,33:80"},
                {"shard": (2, 8, 16)},
                {"block": (1, 48, 16), "shard": (1, 16, 16)},
                {"uncertainty": True, "orientations": "flips"},
                {"levels": 1},
                {"levels": 0},
                {"cluster": "local", "workers": 2},
            )
        ),
    ],
    ids=str,
)
def test_every_level_is_the_mean_of_the_finer_one(
    inputs: tuple[Path, Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    raw, model = inputs
    target = tmp_path / "map.zarr"
    summary = volseg.predict(raw, target, model=model, **(OPTIONS | options))
    record = read_record(target)
    assert summary.levels == len(record.settings.levels) == options.get("levels", 4)
    assert summary.coarser_left == 0
    assert_levels(target, record.settings.levels)
    if options.get("uncertainty"):
        assert_levels(target / "uncertainty", record.settings.levels)
    report = volseg.verify(target, deep=True)
    assert report.sound
    assert report.complete
    marked = {mark.block for mark in read_marks(target / "0" / ".volseg")}
    assert marked == set(range(record.pyramid.count))


def test_levels_lie_where_the_map_lies(inputs: tuple[Path, Path], finished: Path) -> None:
    attributes: Any = zarr.open_group(finished, mode="r").attrs
    first, *others = attributes["ome"]["multiscales"][0]["datasets"]
    size = first["coordinateTransformations"][0]["scale"]
    for level, dataset in zip(read_record(finished).levels, others, strict=True):
        scale, translation = dataset["coordinateTransformations"]
        assert (tuple(scale["scale"]), tuple(translation["translation"])) == coarser_place(size, (0, 0, 0), level.scale)


def test_level_0_is_never_read(inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, original = set[str](), Target.read

    def note(self: Target, box: Box) -> NDArray[Any]:
        read.add(self.level)
        return original(self, box)

    monkeypatch.setattr(Target, "read", note)
    volseg.predict(inputs[0], tmp_path / "map.zarr", model=inputs[1], **OPTIONS)
    assert read == {"1", "2", "3"}


def test_empty_blocks_have_no_shard_at_any_level_and_a_mark_at_each(finished: Path) -> None:
    pyramid = read_record(finished).pyramid
    empty = [mark.block for mark in read_marks(finished / "0" / ".volseg") if mark.skipped]
    assert {pyramid.locate(number)[0] for number in empty} >= {0, 2}
    assert not (finished / "1" / "c" / "0" / "0" / "0").exists()
    assert not (finished / "2" / "c" / "0" / "0" / "0").exists()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 30))])
def test_a_run_that_is_killed_and_resumed_gives_equal_bytes(
    inputs: tuple[Path, Path], finished: Path, tmp_path: Path, seed: int
) -> None:
    raw, model = inputs
    target, rng = tmp_path / "map.zarr", random.Random(seed)
    shutil.copytree(finished, target)
    turns, stop = count(), rng.randrange(read_record(target).pyramid.count)
    keep_marks(target, lambda _: next(turns) < stop)
    for file in target.rglob("*"):  # a kill leaves shards without a mark, or none, of any level
        if file.is_file() and "/c/" in str(file) and rng.random() < 0.2:
            file.unlink()
    summary = volseg.predict(raw, target, model=model, resume=True, **OPTIONS)
    assert contents(target) == contents(finished)
    assert summary.coarser_left == 0
    assert volseg.verify(target, deep=True).sound


def test_a_failed_block_keeps_those_above_it_from_being_made(
    inputs: tuple[Path, Path], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, model = inputs
    target, compute = tmp_path / "map.zarr", worker._compute_block
    bad = 28

    def failing(number: int, reference: worker.RunRef) -> object:
        if number == bad:
            raise BlockError(f"block {number} is bad")
        return compute(number, reference)

    monkeypatch.setattr(worker, "_compute_block", failing)
    summary = volseg.predict(raw, target, model=model, **OPTIONS)
    above = set(read_record(target).pyramid.above([bad]))
    marked = {mark.block for mark in read_marks(target / "0" / ".volseg")}
    assert set(summary.failed) == {bad}
    assert summary.coarser_left == len(above)
    assert marked == set(range(read_record(target).pyramid.count)) - above - {bad}
    status = CliRunner().invoke(main, ["status", str(target), "--json"])
    assert json.loads(status.stdout)["coarser_left"] == len(above)
    monkeypatch.undo()
    again = volseg.predict(raw, target, model=model, resume=True, **OPTIONS)
    assert (again.done, again.coarser_left) == (1, 0)
    assert contents(target) == contents(finished)


@pytest.mark.parametrize("level", [1, *(pytest.param(level, marks=pytest.mark.slow) for level in (0, 2, 4))])
def test_a_lost_or_damaged_shard_of_any_level_is_found_and_made_again(
    inputs: tuple[Path, Path], finished: Path, tmp_path: Path, level: int
) -> None:
    raw, model = inputs
    target = tmp_path / "map.zarr"
    shutil.copytree(finished, target)
    shards = [file for file in sorted((target / str(level) / "c").rglob("*")) if file.is_file()]
    shards[-1].unlink()
    volseg.predict(raw, target, model=model, resume=True, **OPTIONS)
    assert contents(target) == contents(finished)
    content = bytearray(shards[0].read_bytes())
    content[len(content) // 2] ^= 1
    shards[0].write_bytes(content)
    assert not volseg.verify(target).sound
    report = volseg.verify(target, repair=True, source=str(raw), model=(str(model),), cluster="serial")
    assert report.sound
    assert contents(target) == contents(finished)


def test_resuming_with_other_levels_is_refused(inputs: tuple[Path, Path], finished: Path, tmp_path: Path) -> None:
    target = tmp_path / "map.zarr"
    shutil.copytree(finished, target)
    with pytest.raises(volseg.ResumeError, match="levels"):
        volseg.predict(inputs[0], target, model=inputs[1], resume=True, **(OPTIONS | {"levels": 2}))
    without = {key: value for key, value in OPTIONS.items() if key != "levels"}
    assert volseg.predict(inputs[0], target, model=inputs[1], resume=True, **without).done == 0


def test_a_mask_leaves_out_what_is_made_of_nothing(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    raw, model = inputs
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[:2, 64:70, 64:70] = 1
    mask = make_volume(tmp_path / "mask.zarr", SHAPE, voxels=voxels, chunk=(2, 16, 16))
    target = tmp_path / "map.zarr"
    volseg.predict(raw, target, model=model, mask=str(mask), **OPTIONS)
    record = read_record(target)
    pyramid = record.pyramid
    marked = {mark.block for mark in read_marks(target / "0" / ".volseg")}
    assert marked == {record.grid.number((0, 64, 64)), *pyramid.above([record.grid.number((0, 64, 64))])}
    assert record.planned + record.planned_coarser == len(marked)
    assert_levels(target, record.settings.levels)
    assert volseg.verify(target, deep=True).complete
