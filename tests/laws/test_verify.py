"""What anyone does to a finished target is found, what is sound is not accused, and a repair restores equal bytes."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import volseg
from volseg.blocks import Box
from volseg.storage.marks import RECORD_BYTES
from volseg.testing.factories import blobs, make_volume
from volseg.testing.targets import make_target, noise_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from volseg import VerifyReport

EMPTY = {1, 5}
ROI = Box((0, 16, 0), (2, 40, 70))


def verified(target: Path, **options: Any) -> VerifyReport:
    return volseg.verify(str(target), cluster="serial", **options)


def tree(target: Path) -> dict[str, bytes]:
    """All files but the journal's segments, of which a repair adds one."""
    files = (path for path in sorted(target.rglob("*")) if path.is_file() and path.suffix != ".marks")
    return {str(path.relative_to(target)): path.read_bytes() for path in files}


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


def shards(target: Path) -> list[Path]:
    return [path for path in sorted(target.glob("**/c/**/*")) if path.is_file()]


def flip(path: Path, rng: random.Random, first: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(first, len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Places of all numbers and texts of a JSON value: what holds each, and its key there."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, dict | list):
            yield from leaves(item)
        else:
            yield value, key


def change_leaf(document: Any, rng: random.Random) -> None:
    holder, key = rng.choice(list(leaves(document)))
    value = holder[key] or 0
    holder[key] = value + "x" if isinstance(value, str) else not value if isinstance(value, bool) else value + 1


def delete_shard(target: Path, rng: random.Random, other: Path) -> None:
    rng.choice(shards(target)).unlink()


def flip_shard(target: Path, rng: random.Random, other: Path) -> None:
    flip(rng.choice(shards(target)), rng)


def truncate_shard(target: Path, rng: random.Random, other: Path) -> None:
    path = rng.choice(shards(target))
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def append_to_shard(target: Path, rng: random.Random, other: Path) -> None:
    path = rng.choice(shards(target))
    path.write_bytes(path.read_bytes() + b"\0" * rng.randrange(1, 9))


def swap_shards(target: Path, rng: random.Random, other: Path) -> None:
    one, two = rng.sample(shards(target), 2)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def take_shard_of_another_map(target: Path, rng: random.Random, other: Path) -> None:
    path = rng.choice(shards(target / "0"))
    path.write_bytes((other / path.relative_to(target)).read_bytes())


def remove_section(target: Path, rng: random.Random, other: Path) -> None:
    shutil.rmtree(rng.choice(sorted((target / "0" / "c").iterdir())))


def add_stale_shard(target: Path, rng: random.Random, other: Path) -> None:
    lacking = sorted(
        {path.relative_to(other) for path in shards(other)} - {p.relative_to(target) for p in shards(target)}
    )
    name = rng.choice(lacking)
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(other / name, target / name)


def shard_that_is_a_folder(target: Path, rng: random.Random, other: Path) -> None:
    path = rng.choice(shards(target))
    path.unlink()
    path.mkdir()


def flip_journal(target: Path, rng: random.Random, other: Path) -> None:
    (segment,) = (target / "0" / ".volseg").glob("*.marks")
    flip(segment, rng, first=RECORD_BYTES)


def cut_journal(target: Path, rng: random.Random, other: Path) -> None:
    (segment,) = (target / "0" / ".volseg").glob("*.marks")
    content = segment.read_bytes()
    start = rng.randrange(RECORD_BYTES, len(content))
    segment.write_bytes(content[:start] + content[start + rng.choice([1, 72, len(content)]) :])


def delete_journal(target: Path, rng: random.Random, other: Path) -> None:
    (segment,) = (target / "0" / ".volseg").glob("*.marks")
    segment.unlink()


def edit_record(target: Path, rng: random.Random, other: Path) -> None:
    edit(target / "zarr.json", lambda document: change_leaf(document["attributes"]["volseg"], rng))


def edit_array(target: Path, rng: random.Random, other: Path) -> None:
    edit(target / "0" / "zarr.json", lambda document: change_leaf(document, rng))


def edit_place(target: Path, rng: random.Random, other: Path) -> None:
    def change(document: Any) -> None:
        multiscale = document["attributes"]["ome"]["multiscales"][0]
        change_leaf({"axes": multiscale["axes"], "datasets": multiscale["datasets"]}, rng)

    edit(target / "zarr.json", change)


def delete_metadata(target: Path, rng: random.Random, other: Path) -> None:
    (target / rng.choice(["0/zarr.json", "zarr.json"])).unlink()


def damage_constants(target: Path, rng: random.Random, other: Path) -> None:
    (path,) = (target / "0" / ".volseg").glob(rng.choice(["statistics-*.npy", "chunks-*.bin"]))
    path.write_bytes(path.read_bytes()[:-1]) if rng.random() < 0.5 else path.unlink()


def lose_all(target: Path, rng: random.Random, other: Path) -> None:
    shutil.rmtree(target / rng.choice(["0/c", "0/.volseg"]))


CORRUPTIONS = [
    delete_shard, flip_shard, truncate_shard, append_to_shard, swap_shards, take_shard_of_another_map, remove_section,
    add_stale_shard, shard_that_is_a_folder, flip_journal, cut_journal, delete_journal, edit_record, edit_array,
    edit_place, delete_metadata, damage_constants, lose_all,
]  # fmt: skip


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
