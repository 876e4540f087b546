"""`volseg evaluate`: tables, JSON and the output folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from volseg.cli.main import main
from volseg.testing.factories import make_volume

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result
    from numpy.typing import NDArray


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two cells in each of two sections, their map, and ids that split one of them."""
    ids = np.zeros((2, 8, 12), np.uint8)
    ids[:, :, :5], ids[:, :, 6:] = 1, 2
    probability = np.where(ids == 0, 200, 20).astype(np.uint8)
    split = ids.astype(np.uint16)
    split[:, :4, :5] = 3
    made: dict[str, NDArray[Any]] = {"truth": ids, "map": probability, "ids": split, "all": np.ones_like(ids)}
    for name, voxels in made.items():
        make_volume(tmp_path / f"{name}.zarr", voxels.shape, voxels=voxels)
    return tmp_path


def evaluate(folder: Path, prediction: str, *options: str, truth: str = "truth") -> Result:
    words = ["evaluate", str(folder / f"{prediction}.zarr"), str(folder / f"{truth}.zarr"), *options]
    return CliRunner(env={"COLUMNS": "80"}).invoke(main, words)


def test_a_map_is_scored_by_pixels_and_by_cells(folder: Path) -> None:
    done = evaluate(folder, "map")
    assert done.exit_code == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["average", "precision", "1.0000"] in rows
    # 20 of 255 lies below 0.1, and 200 below 0.8: there the cells of 40 and 48 pixels become one.
    assert ["0.1", "1.0000", "1.0000", "<-", "best", "V_rand", "and", "V_info"] in rows
    assert ["V_rand", "1.0000", "1.0000", "1.0000", "0.1"] in rows
    assert ["0.8", "0.6703", "0.0000"] in rows
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_json_holds_plain_numbers_and_nothing_else_is_printed(folder: Path) -> None:
    done = evaluate(folder, "map", "--json")
    scores = json.loads(done.stdout)
    assert done.stderr == ""
    assert scores["f1"] == scores["segmentation"]["best_v_rand"] == 1
    assert len(scores["segmentation"]["v_info"]) == len(scores["segmentation"]["thresholds"]) == 9
    assert "segmentation" not in json.loads(evaluate(folder, "map", "--json", "--pixels-only").stdout)


def test_ids_are_scored_as_ids(folder: Path) -> None:
    scores = json.loads(evaluate(folder, "ids", "--json").stdout)
    assert (scores["precision"], scores["voi_merge"]) == (1, 0)
    assert scores["recall"] < 1
    rows = [line.split() for line in evaluate(folder, "ids").stdout.splitlines()]
    assert ["cremi", f"{scores['cremi']:.4f}"] in rows


def test_output_holds_scores_and_a_plot(folder: Path) -> None:
    output = folder / "new" / "scores"
    shown = json.loads(evaluate(folder, "map", "--json", "--output", str(output)).stdout)
    assert json.loads((output / "scores.json").read_text()) == shown
    with Image.open(output / "thresholds.png") as picture:
        assert picture.size == (960, 840)
    again = evaluate(folder, "ids", "--output", str(output))
    assert again.exit_code == 0
    assert "cremi" in json.loads((output / "scores.json").read_text())


def test_ignored_labels_are_not_scored(folder: Path) -> None:
    wrong = evaluate(folder, "truth", "--kind", "probability", "--json", "--ignore", "0")
    assert wrong.exit_code == 2
    assert "0 membrane and 176 other voxels, so there is nothing to score" in wrong.stderr


@pytest.mark.parametrize(
    ("prediction", "options", "code", "message"),
    [
        ("map", ["--kind", "skeletons"], 2, "'skeletons' is not one of"),
        ("ids", ["--kind", "probability"], 2, "holds uint16; probabilities are uint8 or float32"),
        ("ids", ["--pixels-only"], 2, "--pixels-only is for probability maps"),
        ("map", ["--output", "FILE"], 1, "cannot make"),
    ],
)
def test_refusals_are_one_line(folder: Path, prediction: str, options: list[str], code: int, message: str) -> None:
    (folder / "file").touch()
    done = evaluate(folder, prediction, *(str(folder / "file" / "in") if o == "FILE" else o for o in options))
    assert done.exit_code == code
    assert message in done.stderr.splitlines()[-1]


def test_a_truth_of_one_class_is_refused(folder: Path) -> None:
    done = evaluate(folder, "map", truth="all")
    assert done.exit_code == 2
    assert "0 membrane and 192 other voxels" in done.stderr
