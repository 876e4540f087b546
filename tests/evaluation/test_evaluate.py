"""Files are scored by their type, slab by slab, like arrays in memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from volseg.blocks import Box
from volseg.cli.main import main
from volseg.errors import ConfigError, SourceError
from volseg.evaluation import evaluate as evaluation
from volseg.evaluation.evaluate import EvaluateOptions, evaluate, evaluate_instances, evaluate_map
from volseg.evaluation.metrics import PixelCounts, instance_scores, pixel_scores, section_scores
from volseg.phantom import make_phantom
from volseg.storage.create import create_volume
from volseg.storage.place import Place
from volseg.testing.factories import make_volume, read_volume

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (3, 16, 16)
PIXELS = EvaluateOptions(pixels_only=True)


@pytest.fixture
def truth(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Cell 1, membrane 0."""
    return make_volume(tmp_path / "truth.zarr", SHAPE, voxels=rng.integers(0, 2, SHAPE, dtype=np.uint8))


@pytest.fixture(scope="module")
def phantom() -> dict[str, Any]:
    """Cells with ids, another partition, and a noisy map of their membrane."""
    ids = make_phantom((4, 48, 48), seed=5).labels.astype(np.int32)
    rng = np.random.default_rng(0)
    probability = np.clip((ids == 0) * 0.6 + rng.random(ids.shape) * 0.5, 0, 1).astype(np.float32)
    return {"ids": ids, "other": np.roll(ids, 3, axis=2).astype(np.uint32), "map": probability}


@pytest.fixture(params=["zarr", "tif"])
def files(request: pytest.FixtureRequest, tmp_path: Path, phantom: dict[str, Any]) -> dict[str, str]:
    """The arrays of `phantom` as files."""
    paths = {}
    for name, voxels in phantom.items():
        path = tmp_path / f"{name}.{request.param}"
        if request.param == "zarr":
            make_volume(path, voxels.shape, voxels=voxels)
        else:
            tifffile.imwrite(path, voxels, photometric="minisblack")
        paths[name] = str(path)
    return paths


def write_channels(path: Path, truth: Path, names: tuple[str, str]) -> Path:
    """Write a perfect map of two channels: cell and membrane."""
    target = create_volume(
        path, shape=SHAPE, shard=SHAPE, chunk=SHAPE, dtype="uint8", place=Place.of_nm((30, 6, 6)), channels=names
    )
    cell = read_volume(truth) * np.uint8(255)
    target.write(Box.of_shape(SHAPE), np.stack([cell, 255 - cell]))
    return path


def test_the_channel_membrane_is_the_default(tmp_path: Path, truth: Path) -> None:
    path = write_channels(tmp_path / "map.zarr", truth, ("cell", "membrane"))
    for location in (path, path / "0"):
        assert evaluate_map(str(location), str(truth)).pixels.f1 == 1
    assert evaluate_map(str(path), str(truth), EvaluateOptions(channel="cell")).pixels.f1 == 0


def test_other_channels_are_chosen_by_name_or_number(tmp_path: Path, truth: Path) -> None:
    path = write_channels(tmp_path / "map.zarr", truth, ("inside", "boundary"))
    with pytest.raises(SourceError, match="inside, boundary"):
        evaluate(str(path), str(truth))
    for channel in ("boundary", "1"):
        result = CliRunner().invoke(main, ["evaluate", str(path), str(truth), "--channel", channel, "--json"])
        assert json.loads(result.stdout)["f1"] == 1


def test_slabs_score_like_the_whole_volume(
    files: dict[str, str], phantom: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_SLAB", 3)
    scores = evaluate_map(files["map"], files["ids"], EvaluateOptions(roi="0:4,:,8:40"))
    probability, ids = phantom["map"][:, :, 8:40], phantom["ids"][:, :, 8:40]
    assert scores.segmentation == section_scores(probability, ids)
    counts = PixelCounts()
    counts.add(np.rint(probability * 255).astype(np.uint8), ids == 0)
    assert scores.pixels == pixel_scores(counts)
    assert evaluate_instances(files["other"], files["ids"]) == instance_scores(phantom["other"], phantom["ids"])


def test_the_type_of_a_prediction_decides_the_kind(files: dict[str, str], phantom: dict[str, Any]) -> None:
    assert evaluate(files["other"], files["ids"]) == evaluate_instances(files["other"], files["ids"])
    assert evaluate(files["map"], files["ids"]).pixels == evaluate_map(files["map"], files["ids"], PIXELS).pixels  # type: ignore[union-attr]


def test_uint8_can_be_ids(tmp_path: Path, truth: Path) -> None:
    two = make_volume(tmp_path / "two.zarr", SHAPE, voxels=read_volume(truth) + np.uint8(1))
    with pytest.raises(ConfigError, match="one id besides 0"):
        evaluate(str(two), str(truth), EvaluateOptions(kind="instances"))
    scores = evaluate_instances(str(truth), str(two))
    assert (scores.adapted_rand_error, scores.cremi) == (0, 0)


def test_ignored_labels_do_not_count(tmp_path: Path, phantom: dict[str, Any]) -> None:
    ids, ignored = phantom["ids"], np.zeros(phantom["ids"].shape, bool)
    ignored[:, 10:20, 5:30] = True
    prediction = make_volume(tmp_path / "map.zarr", ids.shape, voxels=phantom["map"])
    wrong = make_volume(tmp_path / "wrong.zarr", ids.shape, voxels=np.where(ignored, np.float32(0.7), phantom["map"]))
    truths = {
        mark: str(
            make_volume(tmp_path / f"{mark}.zarr", ids.shape, voxels=np.where(ignored, mark, ids).astype(np.int32))
        )
        for mark in (-1, 9999)
    }
    expected = evaluate_map(str(prediction), truths[-1])
    scores = evaluate_map(str(wrong), truths[9999], EvaluateOptions(ignore=9999))
    assert (scores.pixels, scores.segmentation) == (expected.pixels, expected.segmentation)
    assert expected.segmentation == section_scores(phantom["map"], np.where(ignored, -1, ids))


def test_the_truth_may_be_a_membrane_mask(tmp_path: Path, truth: Path) -> None:
    membrane = make_volume(tmp_path / "membrane.zarr", SHAPE, voxels=(read_volume(truth) == 0).astype(np.uint8) * 255)
    scores = evaluate_map(str(membrane), str(membrane), EvaluateOptions(membrane="nonzero"))
    assert scores.segmentation is not None
    assert (scores.pixels.f1, scores.segmentation.best_v_rand, scores.segmentation.best_v_info) == (1, 1, 1)


def test_progress_is_reported_for_each_section(files: dict[str, str]) -> None:
    reports: list[tuple[str, int, int]] = []
    evaluate(files["map"], files["ids"], on_progress=lambda *report: reports.append(report))
    assert reports == [("pixels", 4, 4), *(("cells", z, 4) for z in (1, 2, 3, 4))]


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({"kind": "instances"}, "map", "holds float32; ids are integers; store them as such"),
        ({"kind": "probability"}, "other", "holds uint32; probabilities are uint8 or float32; give --kind instances"),
        ({"kind": "skeletons"}, "map", "kind 'skeletons'; choose from auto, probability, instances"),
        ({"membrane": "nonzero"}, "other", "--membrane nonzero is for probability maps"),
        ({"pixels_only": True}, "other", "--pixels-only is for probability maps"),
    ],
)
def test_options_of_another_kind_are_refused(
    files: dict[str, str], options: dict[str, Any], name: str, message: str
) -> None:
    with pytest.raises((ConfigError, SourceError), match=message):
        evaluate(files[name], files["ids"], EvaluateOptions(**options))


@pytest.mark.parametrize(("value", "message"), [(7.0, "to 7; probabilities lie"), (np.nan, "from nan")])
def test_floats_outside_0_to_1_are_refused(tmp_path: Path, truth: Path, value: float, message: str) -> None:
    path = make_volume(tmp_path / "floats.zarr", SHAPE, voxels=np.full(SHAPE, value, np.float32))
    with pytest.raises(SourceError, match=message):
        evaluate(str(path), str(truth))


def test_a_stack_has_no_channels(tmp_path: Path, truth: Path) -> None:
    tifffile.imwrite(tmp_path / "map.tif", read_volume(truth), photometric="minisblack")
    with pytest.raises(ConfigError, match="no channel membrane; choose from 0, or leave --channel out"):
        evaluate(str(tmp_path / "map.tif"), str(truth), EvaluateOptions(channel="membrane"))
