"""Nothing computed for nothing: empty blocks and those outside a mask are skipped, and what is computed is the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

import volseg
from volseg.cli.main import main
from volseg.cluster import NullProgress
from volseg.errors import GridError, ResumeError, SourceError, TargetError
from volseg.storage import UNCERTAINTY, Mark, read_marks, read_record
from volseg.testing.doubles import address_of
from volseg.testing.factories import blobs, create_target_like, make_model, make_volume, read_volume
from volseg.testing.journals import keep_marks

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.cluster.dask_executor import DaskExecutor
    from volseg.prediction.summary import Summary

SHAPE = (1, 64, 160)
BLOCKS = {(y, x) for y in range(2) for x in range(5)}
EMPTY = {(y, x) for y in range(2) for x in (3, 4)}
"""Blocks that see nothing of the tissue, which ends at x = 64: with a halo of 8 the third one does."""
MASKED = {(0, 0), (1, 1), (0, 4)}
"""Blocks that the mask leaves to compute; one of them is empty."""


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tissue with black behind it."""
    voxels = blobs(SHAPE)
    voxels[:, :, 64:] = 0
    return make_volume(tmp_path_factory.mktemp("source") / "padded.zarr", SHAPE, voxels=voxels)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """Four times coarser along y and x, and not zero in a corner of three blocks."""
    voxels = np.zeros((1, 16, 40), np.uint8)
    for y, x in MASKED:
        voxels[0, 8 * y + 7, 8 * x] = 3
    return make_volume(tmp_path / "mask.zarr", voxels.shape, voxels=voxels, chunk=(1, 8, 8))


@pytest.fixture(scope="module")
def options(small_model: Path) -> dict[str, Any]:
    return {
        "model": str(small_model), "block": (1, 32, 32), "halo": (0, 8, 8), "precision": "float32", "cluster": "serial",
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(padded: Path, options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """A run without a mask, in this process."""
    target = tmp_path_factory.mktemp("whole") / "t.zarr"
    return target, volseg.predict(str(padded), str(target), **options)


def shards(target: Path) -> dict[tuple[int, int], bytes]:
    """Shard files by their place along y and x."""
    return {
        (int(path.parent.name), int(path.name)): path.read_bytes()
        for path in (target / "0" / "c").rglob("*")
        if path.is_file()
    }


def marks(target: Path) -> dict[tuple[int, int], Mark]:
    return {divmod(mark.block, 5): mark for mark in read_marks(target / "0" / ".volseg")}


def check_empty_blocks(target: Path, summary: Summary) -> None:
    assert (summary.done, summary.skipped) == (10, {"empty": 4, "outside the mask": 0})
    assert summary.voxels == 64 * 96
    assert set(shards(target)) == BLOCKS - EMPTY
    assert {place for place, mark in marks(target).items() if mark.skipped == "empty" and not mark.digest} == EMPTY
    assert all(mark.digest and not mark.skipped for place, mark in marks(target).items() if place not in EMPTY)
    assert not read_volume(target)[:, :, 96:].any()


def test_an_empty_block_leaves_a_mark_and_no_shard_and_a_resume_does_nothing(
    padded: Path, whole: tuple[Path, Summary], options: dict[str, Any]
) -> None:
    target, summary = whole
    check_empty_blocks(target, summary)
    again = volseg.predict(str(padded), str(target), **options, resume=True)
    assert (again.done, again.already_done, again.skipped) == (0, 10, summary.skipped)
    assert set(shards(target)) == BLOCKS - EMPTY


def test_workers_skip_what_this_process_does(
    padded: Path, whole: tuple[Path, Summary], options: dict[str, Any], two_workers: DaskExecutor, tmp_path: Path
) -> None:
    create_target_like(tmp_path / "t.zarr", whole[0])
    local = options | {"cluster": address_of(two_workers), "resume": True}
    check_empty_blocks(tmp_path / "t.zarr", volseg.predict(str(padded), str(tmp_path / "t.zarr"), **local))
    assert shards(tmp_path / "t.zarr") == shards(whole[0])


def test_what_a_killed_attempt_left_of_a_block_that_is_empty_is_deleted(
    padded: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    target = tmp_path / "t.zarr"
    options = options | {"orientations": "flips", "uncertainty": True, "roi": ":,32:,64:"}
    volseg.predict(str(padded), str(target), **options)
    for folder in (target, target / UNCERTAINTY):
        (folder / "0" / "c" / "0" / "1" / "3").write_bytes(b"half a shard")
    kept = keep_marks(target, lambda mark: mark.block != 1)
    summary = volseg.predict(str(padded), str(target), **options, resume=True)
    assert (kept, summary.done, summary.skipped["empty"]) == (2, 1, 2)
    assert set(shards(target)) == set(shards(target / UNCERTAINTY)) == {(1, 2)}


def test_a_run_with_a_mask_gives_in_its_blocks_the_bytes_of_a_run_without(
    padded: Path, mask: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    """If the network normalises by its training: other constants are those of what the mask keeps."""
    model = make_model(tmp_path / "fixed.safetensors", mode="fixed")
    options = options | {"model": str(model)}
    volseg.predict(str(padded), str(tmp_path / "whole.zarr"), **options)

    class Told(NullProgress):
        total, advanced = 0, 0

        def begin(self, total: int) -> None:
            self.total = total

        def advance(self, voxels: int, busy: float | None = None) -> None:
            self.advanced += 1

    told = Told()
    summary = volseg.predict(str(padded), str(tmp_path / "t.zarr"), **options, mask=str(mask), progress=told)
    assert (summary.blocks, summary.done) == (10, 3)
    assert summary.skipped == {"empty": 1, "outside the mask": 7}
    assert told.total == told.advanced == 3
    assert set(marks(tmp_path / "t.zarr")) == MASKED
    all_shards = shards(tmp_path / "whole.zarr")
    assert shards(tmp_path / "t.zarr") == {place: all_shards[place] for place in MASKED - EMPTY}


def test_a_mask_is_frozen_with_the_run(padded: Path, mask: Path, options: dict[str, Any], tmp_path: Path) -> None:
    target = tmp_path / "t.zarr"
    volseg.predict(str(padded), str(target), **options, mask=str(mask))
    entry = read_record(target).mask
    assert entry is not None
    assert (entry.location, entry.shape, entry.blocks) == (str(mask / "0"), (1, 16, 40), 3)
    full = make_volume(tmp_path / "full.zarr", (1, 16, 40), voxels=np.ones((1, 16, 40), np.uint8))
    with pytest.raises(ResumeError, match=r"another mask \(.*mask.zarr/0 recorded, .*full.zarr/0 requested\)"):
        volseg.predict(str(padded), str(target), **options, mask=str(full), resume=True)
    with pytest.raises(ResumeError, match="another block"):
        volseg.predict(str(padded), str(target), **options | {"block": (1, 64, 32)}, mask=str(mask), resume=True)
    first = next(iter(marks(target).values()))
    assert keep_marks(target, lambda mark: mark.block == first.block) == 1
    moved = mask.rename(tmp_path / "moved.zarr")
    summary = volseg.predict(str(padded), str(target), **options, mask=str(moved), resume=True)
    assert (summary.already_done, summary.done) == (1, 2)
    moved.rename(mask)
    summary = volseg.predict(str(padded), str(target), **options, resume=True)
    assert (summary.already_done, summary.done, summary.skipped["outside the mask"]) == (3, 0, 7)


def test_a_mask_for_a_run_that_had_none_is_refused(
    padded: Path, whole: tuple[Path, Summary], mask: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(ResumeError, match="another mask .none recorded"):
        volseg.predict(str(padded), str(whole[0]), **options, mask=str(mask), resume=True)


def test_masks_that_cannot_be_are_refused_before_anything_is_written(
    padded: Path, mask: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    other = make_volume(tmp_path / "other.zarr", (1, 63, 160))
    with pytest.raises(GridError, match=r"\(1, 63, 160\) is not \(1, 64, 160\) divided.*same resolution or a coarser"):
        volseg.predict(str(padded), str(tmp_path / "t.zarr"), **options, mask=str(other))
    with pytest.raises(SourceError, match=r"the mask cannot be opened: .*none.zarr does not exist"):
        volseg.predict(str(padded), str(tmp_path / "t.zarr"), **options, mask=str(tmp_path / "none.zarr"))
    with pytest.raises(TargetError, match="mask .*outside the mask"):
        volseg.predict(str(padded), str(mask), **options, mask=str(mask), overwrite=True)
    assert not (tmp_path / "t.zarr").exists()


def test_the_command_line_says_what_is_skipped_and_what_is_left(
    padded: Path, mask: Path, small_model: Path, tmp_path: Path
) -> None:
    command = ["predict", str(padded), str(tmp_path / "t.zarr"), "--model", str(small_model), "--block", "1,32,32",
               "--halo", "0,8,8", "--cluster", "serial", "--mask", str(mask)]  # fmt: skip
    dry = json.loads(CliRunner().invoke(main, [*command, "--dry-run", "--json"]).stdout)
    assert (dry["blocks"], dry["blocks_outside_the_mask"], dry["blocks_to_do"]) == (10, 7, 3)
    # Along y 2 blocks read 2 chunks each of 2; along x 2, 3, 3, 3 and 2 of 5.
    assert dry["read_amplification"] == pytest.approx(4 / 2 * 13 / 5)
    assert "10 blocks of 1 x 32 x 32 voxels, 3 to do" in CliRunner().invoke(main, [*command, "--dry-run"]).stdout
    out = CliRunner().invoke(main, command).stdout
    assert "3 of 10 blocks (skipped: 1 empty, 7 outside the mask)" in out
    assert "read amplification 5.20" in out
    left = json.loads(CliRunner().invoke(main, [*command, "--resume", "--dry-run", "--json"]).stdout)
    assert (left["blocks_done_before"], left["blocks_to_do"]) == (3, 0)
    summary = json.loads(CliRunner().invoke(main, [*command, "--resume", "--json"]).stdout)
    assert (summary["done"], summary["skipped"]) == (0, {"empty": 1, "outside the mask": 7})
