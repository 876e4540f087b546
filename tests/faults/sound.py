"""Targets that are sound, whatever was done to them; no verification accuses them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

import volseg
from tests.faults.processes import start
from tests.laws.corrupting import tree
from volseg.errors import VolsegError
from volseg.storage import read_marks
from volseg.testing.journals import keep_marks

if TYPE_CHECKING:
    import random
    from pathlib import Path

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


def outcome(target: Path, **options: Any) -> volseg.VerifyReport | VolsegError:
    """The report, or the error of a refusal."""
    try:
        return volseg.verify(str(target), cluster="serial", seams=False if options.get("repair") else None, **options)
    except VolsegError as error:
        return error


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
    group.create_group("labels").create_group("cells").create_array("0", data=np.zeros(array.shape, np.uint32))
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
