"""What anyone does to a finished target is found, what is sound is not accused, and a repair restores equal bytes."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import volseg
from tests.laws.corrupting import CORRUPTIONS, edit, flip, tree
from volseg.blocks import Box
from volseg.testing.factories import blobs, make_volume
from volseg.testing.targets import make_target, noise_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from volseg import VerifyReport

EMPTY = {1, 5}
ROI = Box((0, 16, 0), (2, 40, 70))


def verified(target: Path, **options: Any) -> VerifyReport:
    return volseg.verify(str(target), cluster="serial", **options)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Targets of each kind: masks, regions, classes, several shards a block, empty blocks, resumed runs."""
    folder = tmp_path_factory.mktemp("sound")
    records: list[tuple[Any, dict[str, Any]]] = [
        (noise_record(), {"empty": EMPTY}),
        (noise_record(uncertainty=True, shard=(1, 8, 16)), {"segments": 3}),
        (noise_record(classes=("cell", "membrane"), region=ROI), {"empty": {0}}),
        (noise_record(shape=(5, 33, 65), block=(4, 16, 16), shard=(2, 16, 8), masked=20), {"unmarked": set(range(10))}),
        (noise_record(shape=(1, 20, 20), block=(1, 16, 16), masked=2, uncertainty=True), {"unmarked": {0, 3}}),
    ]
    return [make_target(folder / f"{n}.zarr", record, **how) for n, (record, how) in enumerate(records)]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run as the first sound one, of another model."""
    return make_target(tmp_path_factory.mktemp("other") / "t.zarr", noise_record(), seed=7)


def test_what_is_sound_is_not_accused(sound: list[Path]) -> None:
    for target in sound:
        before = tree(target)
        for deep in (False, True):
            report = verified(target, deep=deep)
            assert report.sound, report.damaged
            assert report.complete
            assert (report.warnings, report.unmarked) == ({}, 0)
            assert report.checked == report.done == report.blocks
        assert tree(target) == before


@pytest.mark.parametrize("corrupt", CORRUPTIONS)
@pytest.mark.parametrize("rounds", [2, pytest.param(17, marks=pytest.mark.slow)])
def test_each_corruption_is_found(
    sound: list[Path],
    other: Path,
    tmp_path: Path,
    corrupt: Callable[[Path, random.Random, Path], None],
    rounds: int,
) -> None:
    for seed in range(rounds):
        target = shutil.copytree(sound[0], tmp_path / f"{seed}.zarr")
        corrupt(target, random.Random(seed), other)
        report = verified(target, deep=seed % 2 == 1)
        assert not (report.sound and report.complete), f"{corrupt.__name__}, seed {seed}"


@pytest.fixture(scope="module")
def run(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run with a mask, an empty block, a region, two volumes and several shards a block, whose target is there."""
    folder = tmp_path_factory.mktemp("run")
    voxels = blobs((3, 64, 96))
    voxels[:, :, 48:] = 0
    mask = np.ones((3, 64, 96), np.uint8)
    mask[:, 32:, :32] = 0
    options: dict[str, Any] = {
        "source": str(make_volume(folder / "raw.zarr", (3, 64, 96), voxels=voxels)), "target": str(folder / "t.zarr"),
        "model": str(small_model), "mask": str(make_volume(folder / "mask.zarr", (3, 64, 96), voxels=mask)),
        "block": (1, 32, 32), "shard": (1, 16, 32), "halo": (0, 8, 8), "tile": (1, 32, 32), "roi": "0:2,:,:",
        "orientations": "flips", "uncertainty": True, "precision": "float32", "cluster": "serial",
    }  # fmt: skip
    volseg.predict(**options)
    return options


def damage_of_all_kinds(target: Path) -> None:
    """Damage blocks, an empty one, one outside the mask, the metadata, and leave half-written files."""
    (target / "0" / "c" / "0" / "0" / "0").unlink()
    flip(target / "uncertainty" / "0" / "c" / "1" / "1" / "1", random.Random(0))
    shutil.rmtree(target / "0" / "c" / "1" / "3")
    for name in ("0/c/0/0/2", "uncertainty/0/c/0/2/0", "0/c/2/0/0"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(b"stale")
    edit(target / "uncertainty" / "0" / "zarr.json", lambda document: document.update(fill_value=3))
    edit(target / "zarr.json", lambda document: document["attributes"]["ome"].pop("multiscales"))
    (target / "0" / ".partial").mkdir()
    (target / "0" / ".partial" / "abc").write_bytes(b"half")
    for path in (target / "0" / ".volseg").glob("*-*.*[!s]"):
        path.unlink()


def test_a_repair_restores_equal_bytes(run: dict[str, Any], tmp_path: Path) -> None:
    whole = Path(run["target"])
    assert verified(whole).sound
    target = shutil.copytree(whole, tmp_path / "t.zarr")
    damage_of_all_kinds(target)
    (target / "notes.txt").write_text("of a stranger")
    found = verified(target)
    kinds = {"missing": 2, "digest": 1, "stale": 3, "metadata": 2, "statistics": 1, "census": 1}
    assert {kind: group.count for kind, group in found.damaged.items()} == kinds
    report = verified(target, repair=True)
    assert report.sound, report.damaged
    assert report.complete
    assert report.repaired is not None
    assert (report.repaired.blocks, report.repaired.equal, report.repaired.failed) == (3, 3, {})
    assert tree(target) == tree(whole) | {"notes.txt": b"of a stranger"}
    assert [fault.path for fault in report.warnings["stray"].examples] == ["notes.txt"]
    again = verified(target, deep=True)
    assert again.sound
    assert again.complete


def test_a_repair_computes_blocks_whose_marks_are_damaged(run: dict[str, Any], tmp_path: Path) -> None:
    target = shutil.copytree(run["target"], tmp_path / "t.zarr")
    (segment,) = (target / "0" / ".volseg").glob("*.marks")
    flip(segment, random.Random(1), first=segment.stat().st_size - 60)
    assert {kind: group.count for kind, group in verified(target).damaged.items()} == {"journal": 1}
    report = verified(target, repair=True)
    assert report.sound
    assert report.complete
    assert tree(target) == tree(Path(run["target"]))
