"""Small runs that can be told apart: volumes, models, and what their maps are if nothing disturbs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import volseg
from volseg.storage import read_marks, read_record
from volseg.testing.factories import make_model, make_volume

if TYPE_CHECKING:
    from pathlib import Path

SHAPE, BLOCK, BLOCKS = (2, 32, 64), (1, 32, 32), 4
QUICK: dict[str, Any] = {"block": BLOCK, "halo": (0, 8, 8), "tile": (1, 32, 32), "precision": "float32"}
OPTIONS = [
    "--block",
    "1,32,32",
    "--halo",
    "0,8,8",
    "--tile",
    "1,32,32",
    "--precision",
    "float32",
    "--cluster",
    "serial",
]


def content(target: Path) -> dict[str, bytes]:
    """The shards of a map."""
    return {str(p.relative_to(target)): p.read_bytes() for p in sorted((target / "0" / "c").rglob("*")) if p.is_file()}


class Contenders:
    """Drivers whose maps differ, because each has another model.

    Args:
        folder: receives the volume, the models and the map of each.
        count: number of drivers.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.raw = folder / "raw.zarr"
        self.models = [folder / f"model-{seed}.safetensors" for seed in range(count)]
        self.targets = [folder / f"{seed}.zarr" for seed in range(count)]
        self.alone: list[dict[str, bytes]] = []

    def prepare(self) -> None:
        """Make the volume, the models and the map of each."""
        make_volume(self.raw, SHAPE)
        for number, model in enumerate(self.models):
            make_model(model, seed=number)
            self.run(self.targets[number], number)

    def remember(self) -> None:
        """Read the maps of all."""
        self.alone = [content(target) for target in self.targets]

    def run(self, target: Path, number: int, **options: Any) -> dict[str, bytes]:
        """Run a driver in this process; returns the map."""
        volseg.predict(str(self.raw), str(target), model=str(self.models[number]), **QUICK, cluster="serial", **options)
        return content(target)

    def arguments(self, target: Path, number: int, *more: str) -> list[str]:
        """Of the command line."""
        return ["predict", str(self.raw), str(target), "--model", str(self.models[number]), *OPTIONS, *more]

    def winner(self, target: Path) -> int:
        """Whose map a target holds: it is whole, record and journal are that driver's, and nothing else is left."""
        shards = content(target)
        assert shards in self.alone, f"a map of nobody, with {len(shards)} shards"
        number = self.alone.index(shards)
        assert read_record(target).models[0].name == self.models[number].stem
        marks = [mark.block for mark in read_marks(target / "0" / ".volseg")]
        assert sorted(marks) == list(range(BLOCKS)), marks
        beside = [path.name for path in target.parent.iterdir() if path.name.startswith((".", target.name))]
        assert beside == [target.name], beside
        assert not list(target.rglob(".partial"))
        return number
