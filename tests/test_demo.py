"""The demo makes, learns, predicts, scores and draws; and leaves what is not its own alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from click.testing import CliRunner

import volseg.demo
from volseg.cli.main import main
from volseg.testing.factories import read_volume

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


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
