"""Corruptions of finished targets: verify finds what changes data, accuses nothing that is sound, and repairs.

What a corruption changes is told by zarr-python, by the metadata as JSON, and by the last mark of each block; verify
reads none of it in this way.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

import volseg
from tests.faults.campaign import Campaign, run_campaign
from tests.faults.sound import VARIANTS, Run, accuse_nothing, lose_blocks, outcome, read_only
from tests.laws.corrupting import CORRUPTIONS, MORE, constants, tree
from volseg.errors import VolsegError
from volseg.storage import read_marks
from volseg.testing.factories import blobs, make_model, make_volume

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (2, 48, 80)
QUICK: dict[str, Any] = {"block": (1, 32, 32), "halo": (0, 8, 8), "tile": (1, 32, 32), "precision": "float32",
                         "device": "cpu", "cluster": "serial"}  # fmt: skip
SOUND_EVERY = 6


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
        assert "record" in changed or "or its journal" in refused, f"{what}, {changed}: repair refused: {refused}"
        assert tree(target) == before, f"{what}: a refused repair changed files"
        return counts + Counter({"repairs refused, of a damaged record or another's journal": 1})
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


def campaign(seed: int, rounds: int, folder: Path) -> Campaign:
    """Play rounds, each kind of corruption in turn."""
    return run_campaign("corruptions", seed, rounds, folder, Corrupted(folder).play)
