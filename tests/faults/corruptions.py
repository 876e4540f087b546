"""Corruptions of finished targets: verify finds what changes data, accuses nothing that is sound, and repairs.

What a corruption changes is told by zarr-python, by the metadata as JSON, and by the last mark of each block; verify
reads none of it in this way.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

import volseg
from tests.faults.campaign import Campaign, run_campaign
from tests.faults.processes import start
from tests.laws.corrupting import CORRUPTIONS, MORE, constants, tree
from volseg.errors import VolsegError
from volseg.storage import read_marks
from volseg.testing.factories import blobs, make_model, make_volume
from volseg.testing.journals import keep_marks

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (2, 48, 80)
QUICK: dict[str, Any] = {"block": (1, 32, 32), "halo": (0, 8, 8), "tile": (1, 32, 32), "precision": "float32",
                         "device": "cpu", "cluster": "serial"}  # fmt: skip
SOUND_EVERY = 6
_NOBODY = 65534


@dataclass
class Run:
    """A kind of run.

    Attributes:
        options: of `predict`, without source and target.
        whole: its target.
        other: that of another model.
        seen: what is seen of the target.
        files: of the target.
    """

    options: dict[str, Any]
    whole: Path
    other: Path
    seen: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


class Corrupted:
    """Finished runs of several kinds, of which each round corrupts a copy."""

    def __init__(self, folder: Path, kinds: tuple[str, ...] = ()) -> None:
        folder.chmod(0o755)
        voxels, mask = blobs(SHAPE), np.ones(SHAPE, np.uint8)
        voxels[:, :, 48:] = 0
        mask[:, 32:, :32] = 0
        raw = make_volume(folder / "raw.zarr", SHAPE, chunk=(1, 32, 32))
        sparse = make_volume(folder / "sparse.zarr", SHAPE, voxels=voxels)
        masked = {"mask": str(make_volume(folder / "mask.zarr", SHAPE, voxels=mask))}
        unplaced = make_volume(folder / "unplaced.zarr", SHAPE, voxel_nm=None)
        several = {"kind": "unet", "arguments": {"width": 2, "depth": 1, "out_channels": 2}}
        several |= {"classes": ("cell", "membrane"), "activation": "softmax"}
        small: dict[str, Any] = {"shard": (1, 16, 32), "chunk": (1, 8, 16)}
        forms: dict[str, tuple[Path, dict[str, Any], dict[str, Any]]] = {
            "empty": (sparse, {}, {}),
            "masked": (raw, {}, masked),
            "part": (raw, {}, {"roi": "0:2,16:48,:", **small}),
            "uncertain": (raw, {}, {"uncertainty": True, "orientations": "flips"}),
            "classes": (sparse, several, {"classes": "all", "halo": "exact", **small}),
            "started": (sparse, {}, {"block": (2, 16, 32)}),
            "unplaced": (unplaced, {}, {"ignore_voxel_size": True, "shard": (1, 32, 16)}),
            "all": (sparse, {}, {"roi": "0:1,:,:", "uncertainty": True, "orientations": "flips", **masked, **small}),
        }
        self.runs = {name: self._run(folder / name, *forms[name]) for name in kinds or forms}
        self.folder = folder

    def _run(self, folder: Path, source: Path, model: dict[str, Any], options: dict[str, Any]) -> Run:
        folder.mkdir()
        made = [folder / "whole" / "t.zarr", folder / "other" / "t.zarr"]
        run = Run({}, *made)
        for seed, target in enumerate(made):
            target.parent.mkdir()
            path = make_model(folder / f"{seed}.safetensors", **{"seed": seed, **model})
            chosen = QUICK | options | {"source": str(source), "model": str(path)}
            volseg.predict(target=str(target), **chosen)
            run.options = run.options or chosen
        if folder.name == "started":
            for left in (5, 2):
                lose_blocks(made[0], left)
                volseg.predict(target=str(made[0]), resume=True, **run.options)
        run.seen, run.files = seen(made[0]), tree(made[0])
        return run

    def play(self, rng: random.Random, folder: Path) -> Counter[str]:
        """One corruption; now and then also a sound target."""
        number = int(folder.name.rpartition("-")[2])
        kind = rng.choice(list(self.runs))
        run, acts = self.runs[kind], [*CORRUPTIONS, *MORE]
        corrupt = acts[number % len(acts)]
        target = shutil.copytree(run.whole, folder / "t.zarr")
        corrupt(target, rng, run.other)
        counts = judge(run, target, f"{corrupt.__name__} of {kind}", deep=rng.random() < 0.3)
        if number % SOUND_EVERY == 0:
            variant = VARIANTS[number // SOUND_EVERY % len(VARIANTS)]
            moved = variant(run, shutil.copytree(run.whole, folder / "sound" / "t.zarr"), rng)
            accuse_nothing(moved, f"{variant.__name__} of {kind}", is_owned=variant is not read_only)
            counts += Counter({"sound targets, not accused": 1})
        shutil.rmtree(folder)
        return counts


def judge(run: Run, target: Path, what: str, *, deep: bool) -> Counter[str]:
    """Verify and repair a corrupted target."""
    changed, before = differences(run.seen, seen(target)), tree(target)
    report = outcome(target, deep=deep)
    called = isinstance(report, VolsegError) or not (report.sound and report.complete)
    warned = not isinstance(report, VolsegError) and bool(report.warnings)
    assert called or not changed, f"{what}: not found, but other {changed}"
    assert tree(target) == before, f"{what}: verify changed files"
    name = "changes that are seen, found" if changed else f"changes that are not seen, {'' if called else 'not '}called"
    counts = Counter({name: 1, "of these with a warning": int(warned and not called)})
    repaired = outcome(target, repair=True)
    if isinstance(repaired, VolsegError):
        refused = str(repaired)
        assert len(refused.splitlines()) == 1, f"{what}: {refused}"
        assert "; " in refused, f"{what}: no way out: {refused}"
        assert {"record", "place"} & set(changed), f"{what}, {changed}: repair refused: {refused}"
        assert tree(target) == before, f"{what}: a refused repair changed files"
        return counts + Counter({"repairs refused, of a damaged record or an unknown place": 1})
    assert repaired.sound, f"{what}: {repaired.damaged}"
    how = "repairs that restored equal bytes"
    if not repaired.complete:  # marks that were never there and marks that are gone are the same
        assert "marks" in changed, f"{what}: {repaired}"
        volseg.predict(target=str(target), resume=True, **run.options)
        how = "repairs that left blocks without marks to --resume, which restored equal bytes"
    left = differences(run.seen, seen(target))
    assert not left, f"{what}: other {left} after a repair"
    if changed:
        assert tree(target) == run.files, f"{what}: other files: {differences(run.files, tree(target))}"
    again = outcome(target, deep=True)
    assert not isinstance(again, VolsegError), f"{what}: {again}"
    assert again.sound and again.complete, f"{what}: {again.damaged}"  # noqa: PT018
    return counts + Counter({how: 1})


def outcome(target: Path, **options: Any) -> volseg.VerifyReport | VolsegError:
    """The report, or the error of a refusal."""
    try:
        return volseg.verify(str(target), cluster="serial", seams=False if options.get("repair") else None, **options)
    except VolsegError as error:
        return error


def differences(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
    """Keys whose values differ."""
    return sorted(key for key in one.keys() | two.keys() if key not in one or key not in two or one[key] != two[key])


def seen(target: Path) -> dict[str, Any]:
    """What readers of a map see, and what volseg needs to go on with it."""
    found: dict[str, Any] = {}
    for name in ("", "uncertainty"):
        found[f"voxels {name}"] = tried(partial(voxels_of, target / name / "0"))
        found[f"array {name}"] = tried(partial(array_of, target / name / "0"))
        found["place" if not name else "place of the uncertainty"] = tried(partial(place_of, target / name))
    found["record"] = tried(lambda: json.loads((target / "zarr.json").read_text())["attributes"]["volseg"])
    marks = tried(lambda: {mark.block: mark for mark in read_marks(target / "0" / ".volseg")})
    texts = {block: (m.digest, m.skipped, m.bytes, m.file_digest) for block, m in marks.items()} if marks else marks
    return found | {"marks": texts} | {path.name: path.read_bytes() for path in constants(target)}


def tried(read: Callable[[], Any]) -> Any:
    """What a reader returns; None if it refuses."""
    try:
        return read()
    except Exception:  # each codec raises errors of its own
        return None


def voxels_of(array: Path) -> bytes:
    """All voxels, as zarr-python reads them."""
    voxels: NDArray[Any] = np.asarray(zarr.open_array(array, mode="r")[...])
    return voxels.tobytes()


def array_of(array: Path) -> str:
    """What zarr-python says of an array."""
    values = zarr.open_array(array, mode="r").metadata.to_dict()
    return json.dumps({key: value for key, value in values.items() if key != "attributes"}, default=str, sort_keys=True)


def place_of(group: Path) -> str:
    """Version, axes, levels and transformations of an OME-Zarr, and the names of its channels if it has an axis."""
    attributes = zarr.open_group(group, mode="r").attrs
    ome: Any = attributes["ome"]
    image = ome["multiscales"][0]
    channels = [channel["label"] for channel in ome["omero"]["channels"]] if len(image["axes"]) > 3 else []
    place = [ome["version"], image["axes"], image["datasets"], image.get("coordinateTransformations"), channels]
    return json.dumps(place, sort_keys=True)


def accuse_nothing(target: Path, what: str, *, is_owned: bool = True) -> None:
    """Verify a sound target in all ways."""
    before = tree(target)
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    try:
        if not is_owned and is_root:
            os.seteuid(_NOBODY)  # root writes wherever it likes
        reports = [outcome(target, deep=deep) for deep in (False, True)]
    finally:
        if not is_owned and is_root:
            os.seteuid(0)
    for report in reports:
        assert not isinstance(report, VolsegError), f"{what}: {report}"
        assert report.sound, f"{what}: {report.damaged}"
        assert report.complete, f"{what}: {report}"
        assert not report.warnings, f"{what}: {report.warnings}"
        assert report.checked == report.done, f"{what}: {report}"
    assert tree(target) == before, f"{what}: verify changed files"


def lose_blocks(target: Path, count: int) -> None:
    """Take away the marks of the last blocks, as if the run had been stopped before them; their shards stay."""
    blocks = sorted({mark.block for mark in read_marks(target / "0" / ".volseg")})[-count:]
    keep_marks(target, lambda mark: mark.block not in blocks)


def resumed(run: Run, target: Path, rng: random.Random) -> Path:
    lose_blocks(target, rng.randrange(1, 6))
    volseg.predict(target=str(target), resume=True, **run.options)
    return target


def killed(run: Run, target: Path, rng: random.Random) -> Path:
    shutil.rmtree(target)
    options = {key: value for key, value in run.options.items() if key not in ("source", "ignore_voxel_size")}
    arguments = ["predict", run.options["source"], str(target)]
    for key, value in options.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        arguments += [f"--{key}"] if value is True else [f"--{key}", text]
    arguments += ["--ignore-voxel-size"] if "ignore_voxel_size" in run.options else []
    process = start(arguments, target.with_suffix(".log"))
    blocks = rng.randrange(1, 5)
    while process.poll() is None and (not (target / "0").is_dir() or marked(target) < blocks):
        time.sleep(0.002)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    volseg.predict(target=str(target), resume=True, **run.options)
    return target


def marked(target: Path) -> int:
    return sum(1 for _ in read_marks(target / "0" / ".volseg"))


def repaired(run: Run, target: Path, rng: random.Random) -> Path:
    rng.choice([path for path in target.glob("0/c/**/*") if path.is_file()]).unlink()
    assert not isinstance(outcome(target, repair=True), VolsegError)
    return target


def moved(run: Run, target: Path, rng: random.Random) -> Path:
    (target.parent / "elsewhere").mkdir()
    return target.rename(target.parent / "elsewhere" / "another name.zarr")


def copied(run: Run, target: Path, rng: random.Random) -> Path:
    subprocess.run(["cp", "-r", target, target.parent / "copy"], check=True)
    return target.parent / "copy"


def of_other_times(run: Run, target: Path, rng: random.Random) -> Path:
    for path in target.rglob("*"):
        os.utime(path, (rng.randrange(1 << 31), rng.randrange(1 << 31)))
    return target


def with_levels(run: Run, target: Path, rng: random.Random) -> Path:
    """Coarser levels and labels, as another tool or a later volseg writes them."""
    document = json.loads((target / "zarr.json").read_text())
    datasets = document["attributes"]["ome"]["multiscales"][0]["datasets"]
    group = zarr.open_group(target, mode="r+")
    array: Any = group["0"]
    for level in (1, 2):
        group.create_array(str(level), data=array[..., :: 2**level, :: 2**level])
        datasets.append(json.loads(json.dumps(datasets[0]).replace('"path": "0"', f'"path": "{level}"')))
    group.create_group("labels").create_group("cells").create_array("0", data=np.zeros(SHAPE, np.uint32))
    (target / "zarr.json").write_text(json.dumps(document))
    return target


def with_attributes(run: Run, target: Path, rng: random.Random) -> Path:
    group = zarr.open_group(target, mode="r+")
    group.attrs["note"] = {"of": "a user"}
    if rng.random() < 0.5:
        zarr.consolidate_metadata(str(target))
    return target


def read_only(run: Run, target: Path, rng: random.Random) -> Path:
    for path in [target, *target.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for folder in (target.parent, target.parent.parent):
        folder.chmod(0o755)
    return target


VARIANTS = (resumed, killed, repaired, moved, copied, of_other_times, with_levels, with_attributes, read_only)


def campaign(seed: int, rounds: int, folder: Path) -> Campaign:
    """Play rounds, each kind of corruption in turn."""
    return run_campaign("corruptions", seed, rounds, folder, Corrupted(folder).play)
