"""A calibration computes some blocks of the run as the run would, and leaves nothing behind."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

import volseg
import volseg.prediction.trial
from volseg.cli.main import main
from volseg.prediction.calibrate import run_seconds
from volseg.prediction.trial import Trial
from volseg.prediction.worker import compute_block
from volseg.testing.factories import make_volume

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from volseg.pipeline import BlockReport

OPTIONS = (
    "--block",
    "1,32,32",
    "--halo",
    "0,16,16",
    "--cluster",
    "serial",
    "--precision",
    "float32",
    "--device",
    "cpu",
)


def calibrated(raw: Path, target: Path, model: Path, *options: str) -> dict[str, Any]:
    command = ["predict", str(raw), str(target), "--model", str(model), *OPTIONS, "--dry-run", "--calibrate", "--json"]
    done = CliRunner().invoke(main, [*command, *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    fields: dict[str, Any] = json.loads(done.stdout)
    return fields


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the blocks that were computed, each in 0.25 s by its own word, those of coarser levels in 3 s."""
    numbers: list[int] = []

    def compute(number: int, reference: Any) -> BlockReport:
        numbers.append(number)
        return replace(compute_block(number, reference), seconds=3.0 if number >= 256 else 0.25)

    monkeypatch.setattr(volseg.prediction.run, "compute_block", compute)
    return numbers


def test_a_sample_of_the_blocks_stands_for_all(computed: list[int], small_model: Path, tmp_path: Path) -> None:
    raw = make_volume(tmp_path / "raw.zarr", (1, 256, 256))
    fields = calibrated(raw, tmp_path / "p.zarr", small_model, "--levels", "3", "--block", "1,16,16")
    # A tenth of 256 blocks; of the first 16 one of the 16 blocks of level 2 is made, of which 4 of level 3 are made.
    assert len([number for number in computed if number < 256]) == fields["sampled"] + 1 == 26
    assert [256 <= number < 272 for number in computed if number >= 256] == [True]
    assert fields["seconds_for_the_run"] == pytest.approx(256 * 0.25 + 20 * 3.0)
    low, middle, high = fields["seconds_interval"]
    assert (middle - low, high - middle) == pytest.approx((0.2 * middle, 0.2 * middle))
    assert fields["worker_hours"][1] == pytest.approx((middle + fields["seconds_to_start"]) / 3600, rel=0.01)
    assert fields["kind"].endswith("float32")
    assert sorted(path.name for path in tmp_path.iterdir() if "p.zarr" in path.name) == []


def test_an_interval_holds_the_mean_of_what_was_sampled() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        speed = rng.normal(1.0, 0.1)  # of the machine, another one in the run
        sampled, run = rng.gamma(4.0, 0.25, 20), rng.gamma(4.0, 0.25, 300) * speed
        low, _, high = run_seconds(Trial(tuple(sampled), (), (), (1,), 1, "cpu"), 300, 0, 1)
        held += low <= run.sum() <= high
    assert 0.8 <= held / 400 <= 0.99


def test_money_is_hours_by_their_price(small_model: Path, tmp_path: Path) -> None:
    raw, prices = make_volume(tmp_path / "raw.zarr", (1, 128, 128)), tmp_path / "prices.toml"
    prices.write_text('currency = "EUR"\ngigabyte_month = 1000.0\n[worker_hour]\ncpu = 3600.0\n')
    fields = calibrated(raw, tmp_path / "p.zarr", small_model, "--prices", str(prices))
    assert fields["money"]["currency"] == "EUR"
    assert fields["money"]["amount"] == pytest.approx([3600 * hours for hours in fields["worker_hours"]])
    assert fields["money"]["month"] == pytest.approx(fields["bytes_stored"] / 1e6)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--dry-run",), "--prices with --dry-run needs --calibrate"),
        (("--dry-run", "--calibrate"), "the price table has no worker_hour for 'cpu"),
    ],
)
def test_prices_that_cannot_be_used_are_refused(
    small_model: Path, tmp_path: Path, options: Sequence[str], line: str
) -> None:
    raw, prices = make_volume(tmp_path / "raw.zarr", (1, 64, 64)), tmp_path / "prices.toml"
    prices.write_text("[worker_hour]\nH100 = 2.0\n")
    command = ["predict", str(raw), str(tmp_path / "p.zarr"), "--model", str(small_model), *OPTIONS, *options]
    done = CliRunner().invoke(main, [*command, "--prices", str(prices)])
    assert (done.exit_code, line in done.stderr) == (2, True)


def test_a_sample_without_any_image_is_refused(small_model: Path, tmp_path: Path) -> None:
    raw = make_volume(tmp_path / "raw.zarr", (1, 256, 256), voxels=np.full((1, 256, 256), 7, np.uint8))
    command = ["predict", str(raw), str(tmp_path / "p.zarr"), "--model", str(small_model), *OPTIONS]
    done = CliRunner().invoke(main, [*command, "--dry-run", "--calibrate"])
    assert (done.exit_code, "each holds a single grey value; give --roi or --mask" in done.stderr) == (1, True)
