"""The demo makes, learns, predicts, scores and draws; and leaves what is not its own alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

import volseg.demo
from volseg.cli.main import main
from volseg.testing.factories import read_volume
from volseg.training.job import NullReporter

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.config import TrainConfig


def test_the_demo_takes_the_whole_journey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volseg.demo, "_LEARN_SHAPE", (4, 160, 160))
    monkeypatch.setattr(volseg.demo, "_UNSEEN_SHAPE", (4, 224, 224))
    folder = tmp_path / "demo"
    result = CliRunner().invoke(main, ["demo", str(folder), "--steps", "60"], catch_exceptions=False)
    assert result.exit_code == 0
    assert f"volseg view {folder / 'unseen-raw.zarr'} {folder / 'unseen-membrane.zarr'}" in result.stdout
    assert (folder / "unseen.png").read_bytes().startswith(b"\x89PNG")
    f1 = float(result.stdout.partition("F1 ")[2].partition(",")[0])
    assert f1 > 0.6
    assert read_volume(folder / "unseen-membrane.zarr").shape == (4, 224, 224)
    (folder / "mine.txt").write_text("precious")
    volseg.demo.DemoFolder(folder).clear(overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    again = CliRunner().invoke(main, ["demo", str(folder)])
    assert (again.exit_code, "is not empty; give --overwrite" in again.stderr) == (1, True)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    result = CliRunner().invoke(main, ["demo", str(tmp_path / "thesis.txt"), "--overwrite"])
    assert (result.exit_code, "holds no earlier demo" in result.stderr) == (1, True)


def test_overwrite_leaves_other_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    result = CliRunner().invoke(main, ["demo", str(tmp_path), "--overwrite"])
    assert (result.exit_code, "holds no earlier demo" in result.stderr) == (1, True)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_the_training_is_counted_in_steps_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[TrainConfig] = []
    monkeypatch.setattr(volseg.demo, "train", lambda config, screen: configs.append(config))
    for _ in range(2):
        volseg.demo.learn(volseg.demo.DemoFolder(tmp_path), 7, NullReporter())
    assert configs[0] == configs[1]
    assert (configs[0].fit.steps, configs[0].fit.minutes) == (7, None)


@pytest.mark.parametrize(("own", "is_worse"), [(0.664, True), (0.9, False)])
def test_the_demo_says_if_its_own_network_is_worse_than_the_packaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: float, is_worse: bool
) -> None:
    scores = SimpleNamespace(f1=own, average_precision=0.9)
    for name, result in (
        ("make_data", None),
        ("learn", None),
        ("map_and_score", scores),
        ("score_section", scores),
        ("map_with_packaged", SimpleNamespace(f1=0.868, average_precision=0.95)),
        ("draw", None),
    ):
        monkeypatch.setattr(volseg.demo, name, lambda *_, result=result: result)
    done = CliRunner().invoke(main, ["demo", str(tmp_path / "demo")], catch_exceptions=False)
    assert done.exit_code == 0
    assert f"F1 0.868, average precision 0.950; trained here: F1 {own:.3f}" in done.stdout
    assert ("network that was trained here is worse" in done.stdout) == is_worse
