"""What `volseg predict` says: its plan as a quotation, and a run in which nothing was computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from volseg.cli.main import main
from volseg.cli.quotation import quotation
from volseg.testing.factories import make_model, make_volume

if TYPE_CHECKING:
    from click.testing import Result

SHAPE = (4, 64, 64)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model and volumes with and without tissue."""
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "m.safetensors")
    make_volume(tmp_path / "raw.zarr", SHAPE)
    make_volume(tmp_path / "zero.zarr", SHAPE, voxels=np.zeros(SHAPE, np.uint8))


def predict(*arguments: str) -> Result:
    command = ["predict", *arguments, "--model", "m.safetensors", "--halo", "0,16,16", "--precision", "float32"]
    return CliRunner().invoke(main, [*command, "--cluster", "serial", "--block", "2,32,32"], catch_exceptions=False)


@pytest.mark.parametrize("more", [(), ("--resume",)], ids=["new", "resumed"])
def test_a_run_of_empty_blocks_only_warns_and_says_so_in_json(more: tuple[str, ...]) -> None:
    done = predict("zero.zarr", "out.zarr")
    assert done.exit_code == 0
    assert "Warning: every block is empty" in done.stderr
    assert all(cause in done.stderr for cause in ("dimension_separator", "lost", "--scale-level", "--roi", "--mask"))
    if more:
        done = predict("zero.zarr", "out.zarr", *more)
        assert "Warning: every block is empty" in done.stderr
    summary = json.loads(predict("zero.zarr", "out.zarr", "--json", *(more or ("--overwrite",))).stdout)
    assert (summary["all_empty"], summary["skipped"]["empty"]) == (True, 8)


def test_a_run_with_tissue_does_not_warn() -> None:
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[3, 63, 63] = 1
    make_volume(Path("corner.zarr"), SHAPE, voxels=voxels)
    done = predict("corner.zarr", "out.zarr", "--json")
    assert json.loads(done.stdout)["skipped"]["empty"] > 0
    assert (json.loads(done.stdout)["all_empty"], "is empty" in done.stderr) == (False, False)


def test_a_dry_run_reads_like_a_quotation() -> None:
    lines = predict("raw.zarr", "out.zarr", "--dry-run").stdout.splitlines()
    rows = {line[:8].strip(): line[8:] for line in lines if line[0] != " "}
    assert list(rows) == ["source", "model", "target", "blocks", "halo", "work", "reads", "writes", "memory", "time"]
    text = "\n".join(lines)
    assert "4 x 64 x 64 voxels of 30 x 6 x 6 nm, uint8" in text
    assert rows["model"] == "m, trained on voxels of 30 x 6 x 6 nm"
    assert rows["blocks"] == "8 blocks of 2 x 32 x 32 voxels, 8 to do"
    assert rows["halo"] == "0 x 16 x 16 voxels (final)"
    assert rows["writes"] == "16.4 kB uncompressed"
    assert rows["memory"].partition(" MiB for a worker")[0].isdecimal()
    assert rows["time"] == "unknown; --calibrate measures it on a worker"


def test_the_json_of_a_dry_run_has_the_exact_numbers() -> None:
    fields = json.loads(predict("raw.zarr", "out.zarr", "--dry-run", "--json").stdout)
    assert (fields["dtype"], fields["voxel_nm"], fields["models_voxel_nm"]) == ("uint8", [30, 6, 6], [[30, 6, 6]])
    assert (fields["bytes_to_write"], fields["blocks_to_do"]) == (4 * 64 * 64, 8)
    large = json.loads(predict("raw.zarr", "out.zarr", "--dry-run", "--json", "--tile", "1,16,16").stdout)
    # A core of 16 with a halo of 16 computes 48 x 48 for 16 x 16; one of 32 computes 64 x 64 for 32 x 32.
    assert large["flops_per_voxel"] / fields["flops_per_voxel"] == pytest.approx(9 / 4, rel=1e-3)


def test_a_calibrated_quotation_states_the_time() -> None:
    fields = json.loads(predict("raw.zarr", "out.zarr", "--dry-run", "--json", "--calibrate").stdout)
    fields |= {"seconds_for_the_run": 90061, "workers": 3, "device": "cuda", "measured_gpu_peak_bytes": 3 << 20}
    text = quotation(fields | {"predicted_gpu_peak_bytes": 2 << 20})
    assert "time    about 1 day, 1:01:01 on 3 workers" in text
    assert "2 MiB on its GPU (3 MiB measured)" in text
    assert "float32 on CUDA, tiles of " in text
    assert "more than one driver" not in text
    busy = quotation(fields | {"blocks_a_second": 34567.0, "block_for_the_driver": (2, 64, 64)})
    assert "34,567 blocks a second are more than one driver marks; with --block 2,64,64 it keeps up" in busy
    assert not Path("out.zarr").exists()


def test_a_gpu_that_this_machine_lacks_is_refused_in_a_dry_run_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = predict("raw.zarr", "out.zarr", "--dry-run", "--device", "cuda")
    assert (done.exit_code, "device cuda: no CUDA device is visible" in done.stderr) == (2, True)
