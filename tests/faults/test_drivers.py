"""Of several drivers on one target one wins, whole; what the others did leaves no trace."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

import volseg
import volseg.storage.publish
from volseg.errors import TargetError, VolsegError
from volseg.storage import read_marks, read_record
from volseg.testing.factories import make_model, make_volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPE, BLOCK = (2, 32, 64), (1, 32, 32)
BLOCKS = 4
QUICK: Any = {"block": BLOCK, "halo": (0, 8, 8), "tile": (1, 32, 32), "precision": "float32", "cluster": "serial"}
STEPS = (
    ("volseg.prediction.run", "resolve_run"),
    ("volseg.storage.publish", "sync_tree"),
    ("volseg.storage.publish", "_publish"),
    ("volseg.storage.target", "open_target"),
    ("volseg.prediction.run", "_take_over"),
    ("volseg.prediction.run", "compute_block"),
)
"""Functions at whose start and end another driver runs; None is the end of the journal."""


def content(target: Path) -> dict[str, bytes]:
    return {str(p.relative_to(target)): p.read_bytes() for p in sorted((target / "0" / "c").rglob("*")) if p.is_file()}


class Contenders:
    """Two drivers, whose maps differ."""

    def __init__(self, folder: Path) -> None:
        self.raw = make_volume(folder / "raw.zarr", SHAPE)
        self.models = [make_model(folder / f"{seed}.safetensors", seed=seed) for seed in range(2)]
        self.alone = [self.run(folder / f"{seed}.zarr", seed) for seed in range(2)]

    def run(self, target: Path, seed: int, **options: Any) -> dict[str, bytes]:
        volseg.predict(str(self.raw), str(target), model=str(self.models[seed]), **QUICK, **options)
        return content(target)

    def winner(self, target: Path) -> int:
        """Whose map a target holds, after all checks of the law."""
        map_of = self.alone.index(content(target))
        record = read_record(target)
        assert record.models[0].name == str(map_of)
        assert [mark.block for mark in read_marks(target / "0" / ".volseg")] == list(range(BLOCKS))
        assert [path.name for path in target.parent.iterdir()] == [target.name]
        assert not list(target.rglob(".partial"))
        return map_of


@pytest.fixture(scope="module")
def contenders(tmp_path_factory: pytest.TempPathFactory) -> Contenders:
    return Contenders(tmp_path_factory.mktemp("contenders"))


def at(monkeypatch: pytest.MonkeyPatch, step: tuple[str, str], when: str, act: Callable[[], object]) -> None:
    """Do something once, before or after a step of the first driver that comes to it."""
    module, name = import_module(step[0]), step[1]
    function, acted = getattr(module, name), list[bool]()

    def once() -> None:
        if not acted:
            acted.append(True)
            act()

    def with_act(*arguments: Any, **options: Any) -> Any:
        if when == "before":
            once()
        result = function(*arguments, **options)
        if when == "after":
            once()
        return result

    monkeypatch.setattr(module, name, with_act)


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "renames"])
@pytest.mark.parametrize("second", ["plain", "overwrite", "resume"])
@pytest.mark.parametrize("first", ["plain", "overwrite", "resume"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS, ids=[name for _, name in STEPS])
def test_a_second_driver_at_any_step_of_the_first(  # noqa: PLR0913
    contenders: Contenders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    step: tuple[str, str], when: str, first: str, second: str, exchanges: bool,
) -> None:  # fmt: skip
    target, errors = tmp_path / "t.zarr", list[str]()
    if first == "overwrite":
        contenders.run(target, 1)
    if not exchanges:
        monkeypatch.setattr(volseg.storage.publish, "exchange", lambda a, b: False)

    def drive(seed: int, mode: str) -> None:
        try:
            contenders.run(target, seed, **({} if mode == "plain" else {mode: True}))
        except VolsegError as error:
            assert isinstance(error, TargetError) or "was started with another model" in str(error), error
            errors.append(str(error))

    at(monkeypatch, step, when, lambda: drive(1, second))
    drive(0, first)
    contenders.winner(target)
    assert len(errors) <= 1
    assert all("\n" not in line and "t.zarr" in line for line in errors)
