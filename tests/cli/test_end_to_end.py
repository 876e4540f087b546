"""Commands end to end on small volumes."""

from __future__ import annotations

import json
import re
import tomllib
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import yaozarrs
from click.testing import CliRunner

from volseg.cli.main import main
from volseg.config import TrainConfig
from volseg.storage import open_volume, read_record
from volseg.testing.factories import blobs, make_model, make_volume, read_volume, whole_pass_bytes

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "stack.tif", blobs((4, 50, 60)), photometric="minisblack")
    out = run("convert", str(tmp_path / "stack.tif"), str(tmp_path / "raw.zarr"), "--voxel-size", "30,6,6")
    assert "4 sections of 50 x 60, uint8, voxels of 30 x 6 x 6 nm" in out
    return tmp_path / "raw.zarr"


def test_convert_predict_evaluate(converted: Path, small_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "p.zarr"
    summary = json.loads(
        run("predict", str(converted), str(target), "--model", str(small_model), "--block", "2,32,32",
            "--precision", "float32", "--cluster", "serial", "--json")
    )  # fmt: skip
    assert (summary["blocks"], summary["done"], summary["failed"]) == (8, 8, {})
    np.testing.assert_allclose(read_volume(target), whole_pass_bytes(small_model, converted), atol=1)
    yaozarrs.validate_zarr_store(str(target))
    record = read_record(target)
    assert (0, 0, 0) < record.models[0].halo <= (0, 52, 52)
    assert record.models[0].statistics
    assert record.source.voxel_nm == (30.0, 6.0, 6.0)
    truth = (read_volume(target) < 128).astype(np.uint8)
    tifffile.imwrite(tmp_path / "truth.tif", truth, photometric="minisblack")
    scores = json.loads(run("evaluate", str(target), str(tmp_path / "truth.tif"), "--json"))
    assert scores["f1"] == 1.0
    assert "best threshold" in run("evaluate", str(target), str(tmp_path / "truth.tif"), "--roi", "1:3,:,:")


def test_a_dry_run_writes_nothing(converted: Path, small_model: Path, tmp_path: Path) -> None:
    arguments = ["predict", str(converted), str(tmp_path / "p.zarr"), "--model", str(small_model), "--dry-run"]
    figures = json.loads(run(*arguments, "--block", "2,32,32", "--json"))
    assert figures["seconds_for_the_run"] is None  # a number is never a text
    assert (figures["blocks"], figures["halo"], figures["voxels_to_write"]) == (8, [0, 52, 52], 4 * 50 * 60)
    assert figures["read_for_each_written"] == pytest.approx((32 + 104) ** 2 / 32**2, abs=0.01)
    # Chunks are (2, 32, 32) or as large as the image is; a block in flight is read, and mirrored where it ends.
    assert figures["bytes_to_write"] == 4 * 50 * 60
    assert figures["bytes_to_read"] == pytest.approx(figures["read_amplification"] * in_chunks(converted), rel=0.01)
    assert figures["bytes_of_blocks_in_flight"] == 2 * 2 * (32 + 104) ** 2 * 2
    shown = run(*arguments)
    assert re.search(r"^blocks +1 block of 4 x \d+ x \d+ voxels", shown, re.MULTILINE)
    assert "--calibrate" in shown
    assert not (tmp_path / "p.zarr").exists()


def in_chunks(path: Path) -> int:
    """Voxels of the chunks of a volume."""
    volume = open_volume(str(path))
    return prod(-(-n // c) * c for n, c in zip(volume.shape, volume.chunk, strict=True))


def test_a_calibration_measures_a_run_and_writes_nothing(converted: Path, small_model: Path, tmp_path: Path) -> None:
    arguments = ["predict", str(converted), str(tmp_path / "p.zarr"), "--model", str(small_model), "--calibrate"]
    refused = CliRunner().invoke(main, arguments)
    assert (refused.exit_code, refused.output.count("\n"), "--calibrate needs --dry-run" in refused.output) == (
        2,
        1,
        True,
    )
    arguments += ["--dry-run", "--cluster", "serial", "--block", "2,32,32", "--tile", "1,16,16", "--json"]
    before = {path.name for path in tmp_path.iterdir()}
    figures = json.loads(run(*arguments))
    assert {path.name for path in tmp_path.iterdir()} == before
    assert (figures["workers"], figures["slots"], figures["device"]) == (1, 1, "cpu")
    assert (figures["tiles"], figures["batches"]) == ([[1, 16, 16]], [1])
    (halo,) = figures["halos"]
    assert halo == figures["halo"]
    assert figures["read_for_each_written"] == pytest.approx((1 + 2 * halo[1] / 32) ** 2, abs=0.01)
    # Rounded to a millisecond a block; the first block may take longer, once.
    assert figures["seconds_for_the_run"] >= 8 * figures["seconds_a_block"] - 0.06
    assert 0 < figures["seconds_a_block"] < 60
    voxels = figures["kvoxel_s_of_a_worker"] * figures["seconds_a_block"]
    assert voxels == pytest.approx(2 * 32 * 32 / 1e3, rel=0.1)
    # Other tests left memory behind in this process: only check that both are in bytes.
    assert min(figures["predicted_peak_bytes"], figures["measured_peak_bytes"]) > 1 << 27
    assert figures["predicted_gpu_peak_bytes"] == figures["measured_gpu_peak_bytes"] == 0


def test_a_calibration_selects_blocks_with_contrast(small_model: Path, tmp_path: Path) -> None:
    voxels = np.full((2, 64, 256), 7, np.uint8)
    make_volume(tmp_path / "grey.zarr", voxels.shape, voxels=voxels)
    voxels[:, 4, 4] = 200  # in the first block, which is tried last
    make_volume(tmp_path / "speck.zarr", voxels.shape, voxels=voxels)
    arguments = [str(tmp_path / "p.zarr"), "--model", str(small_model), "--dry-run", "--calibrate"]
    arguments += ["--cluster", "serial", "--block", "2,64,64", "--halo", "0,0,0"]
    figures = run("predict", str(tmp_path / "speck.zarr"), *arguments)
    assert re.search(r"kvoxel/s and [0-9.]+ s a block", figures)
    refused = CliRunner().invoke(main, ["predict", str(tmp_path / "grey.zarr"), *arguments])
    assert refused.exit_code == 1
    assert re.search(r"of 4 blocks tried, each holds a single grey value; give --roi or --mask", refused.stderr)


def test_a_region_keeps_the_sources_shape_and_grows_to_whole_shards(converted: Path, tmp_path: Path) -> None:
    # With the constants of the training: those of a region are not those of the volume.
    model = make_model(tmp_path / "fixed.safetensors", mode="fixed")
    arguments = ["predict", str(converted), str(tmp_path / "p.zarr"), "--model", str(model), "--block", "2,32,32"]
    result = CliRunner().invoke(
        main, [*arguments, "--precision", "float32", "--cluster", "serial", "--roi", "1:2,40:45,0:10"]
    )
    assert result.exit_code == 0
    assert "Warning: region 1:2,40:45,0:10 grows to 0:2,32:50,0:32" in result.stderr
    made = read_volume(tmp_path / "p.zarr")
    assert made.shape == (4, 50, 60)
    whole = whole_pass_bytes(model, converted)
    np.testing.assert_allclose(made[0:2, 32:, :32], whole[0:2, 32:, :32], atol=1)
    assert not made[2:].any()
    assert not made[:, :32].any()
    assert not made[:, :, 32:].any()


def test_overwrite_replaces(converted: Path, small_model: Path, tmp_path: Path) -> None:
    arguments = [
        "predict",
        str(converted),
        str(tmp_path / "p.zarr"),
        "--model",
        str(small_model),
        "--cluster",
        "serial",
    ]
    run(*arguments)
    (tmp_path / "p.zarr" / "0" / "left-over").touch()
    run(*arguments, "--overwrite")
    assert not (tmp_path / "p.zarr" / "0" / "left-over").exists()


def test_a_small_halo_warns_once(converted: Path, small_model: Path, tmp_path: Path) -> None:
    arguments = [
        "predict",
        str(converted),
        str(tmp_path / "p.zarr"),
        "--model",
        str(small_model),
        "--cluster",
        "serial",
    ]
    result = CliRunner().invoke(main, [*arguments, "--halo", "0,16,16"])
    assert result.exit_code == 0
    assert result.stderr.count("Warning: halo (0, 16, 16) is below the (0, 52, 52)") == 1


def test_train_writes_a_model_that_predicts(converted: Path, tmp_path: Path) -> None:
    labels = (blobs((4, 50, 60)) > 110).astype(np.uint8) * 255
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
    (tmp_path / "run.toml").write_text(
        f'[data]\nraw = "{converted}"\nlabels = "{tmp_path}/labels.tif"\ntrain = [0, 3]\nvalidation = [3, 4]\n'
        "[network]\narguments = { width = 4, depth = 1 }\n"
        "[patches]\nsize = 32\nworkers = 0\n[fit]\nsteps = 30\n[validation]\nevery = 15\n"
        "[optimizer]\nlearning_rate = 0.01\n"
        f'[output]\nfolder = "{tmp_path}/out"\nname = "net"\n'
    )
    out = run("train", str(tmp_path / "run.toml"))
    assert "net.safetensors: 30 steps" in out
    assert "waiting for data, best average_precision" in out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("net.safetensors", "net-last.safetensors", "checkpoint.safetensors", "log.jsonl"),
        *("curves.png", "validation.png", "validation-best.png"),
    }
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert sum("loss" in entry for entry in log) == 30
    assert sum("validation_f1" in entry for entry in log) == 2
    model = str(tmp_path / "out" / "net.safetensors")
    run("predict", str(converted), str(tmp_path / "p.zarr"), "--model", model, "--cluster", "serial")
    scores = json.loads(run("evaluate", str(tmp_path / "p.zarr"), str(tmp_path / "labels.tif"), "--json"))
    assert scores["best_f1"] > 0.8
    assert "fusionnet" in run("models", model)
    again = CliRunner().invoke(main, ["train", str(tmp_path / "run.toml")])
    assert (again.exit_code, "--resume" in again.stderr, "output.folder" in again.stderr) == (1, True, True)


def test_a_coarser_level_of_the_source_gives_a_map_of_its_shape(small_model: Path, tmp_path: Path) -> None:
    """A pyramid of 30 x 3 x 3 and 30 x 6 x 6 nm: the model was trained for the second."""
    fine = make_volume(tmp_path / "raw.zarr", (4, 100, 120), voxel_nm=(30.0, 3.0, 3.0))
    coarse = make_volume(tmp_path / "coarse.zarr", (4, 50, 60))
    (coarse / "0").rename(fine / "1")
    attributes = json.loads((fine / "zarr.json").read_text())
    levels = attributes["attributes"]["ome"]["multiscales"][0]["datasets"]
    levels.append({"path": "1", "coordinateTransformations": [{"type": "scale", "scale": [30.0, 6.0, 6.0]}]})
    (fine / "zarr.json").write_text(json.dumps(attributes))
    arguments = ["predict", str(fine), str(tmp_path / "p.zarr"), "--model", str(small_model), "--cluster", "serial"]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1
    assert "trained on 30 x 6 x 6 nm (z, y, x); use --scale-level 1, " in refused.output
    run(*arguments, "--scale-level", "1", "--precision", "float32", "--halo", "exact")
    made = open_volume(str(tmp_path / "p.zarr"))
    assert (made.shape, made.voxel_nm) == ((4, 50, 60), (30.0, 6.0, 6.0))
    assert read_record(tmp_path / "p.zarr").source.location == str(fine / "1")
    np.testing.assert_allclose(read_volume(tmp_path / "p.zarr"), whole_pass_bytes(small_model, fine / "1"), atol=1)


def test_a_refused_training_can_start_after_a_correction(converted: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "labels.tif", (blobs((4, 50, 60)) > 100).astype(np.uint8), photometric="minisblack")
    text = (
        f'[data]\nraw = "{converted}"\nlabels = "{tmp_path}/labels.tif"\ntrain = [0, 4]\n'
        "[network]\narguments = {{ width = 2, depth = 1, out_channels = {channels} }}\n"
        f'[fit]\nsteps = 2\n[patches]\nsize = 32\nworkers = 0\n[output]\nfolder = "{tmp_path}/run"\n'
    )
    (tmp_path / "run.toml").write_text(text.replace("{{", "{").replace("}}", "}").replace("{channels}", "3"))
    refused = CliRunner().invoke(main, ["train", str(tmp_path / "run.toml")])
    assert refused.exit_code != 0
    (tmp_path / "run.toml").write_text(text.replace("{{", "{").replace("}}", "}").replace("{channels}", "1"))
    run("train", str(tmp_path / "run.toml"))
    assert "2 steps" in run("train", str(tmp_path / "run.toml"), "--resume")


def test_print_config_shows_all_keys_with_overrides(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        '[[data]]\nraw = "a"\nlabels = "b"\ntrain = [0, 3]\n'
        '[[data]]\nraw = "c"\nlabels = "d"\ntrain = [[0, 1], [2, 3]]\n'
        '[output]\nfolder = "o"\n'
    )
    shown = run(
        "train", str(tmp_path / "run.toml"), "--set", "data.1.weight=0.5", "--set", "fit.seed=7", "--print-config"
    )
    assert re.search(r"^# .*\.\nclip = 1\.0$", shown, re.MULTILINE)  # a description above the key
    read = TrainConfig.model_validate(tomllib.loads(shown))
    assert (read.fit.seed, read.data[0].weight, read.data[1].weight) == (7, 1.0, 0.5)
    defaults = TrainConfig.model_validate(tomllib.loads((tmp_path / "run.toml").read_text()))
    assert read.model_dump(exclude={"data", "fit"}) == defaults.model_dump(exclude={"data", "fit"})
