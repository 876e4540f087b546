"""What a run took is counted, summed over its starts, and shown by `volseg status --cost`."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from click.testing import CliRunner

import volseg
import volseg.prediction.run
from volseg.cli.main import main
from volseg.cluster import SerialExecutor
from volseg.errors import SourceError
from volseg.pipeline import BlockReport
from volseg.prediction.usage import UsageMeter
from volseg.prediction.worker import compute_block
from volseg.storage import KindUsage, StartUsage, UsageLog, read_usage, total_usage
from volseg.testing.factories import make_volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def predict(small_model: Path, tmp_path: Path) -> Callable[..., Any]:
    raw = make_volume(tmp_path / "raw.zarr", (2, 64, 64))

    def call(**options: Any) -> Any:
        options = {"block": (1, 32, 32), "halo": (0, 16, 16), "cluster": "serial", "levels": 0, **options}
        return volseg.predict(str(raw), str(tmp_path / "p.zarr"), model=str(small_model), **options)

    return call


def cost(target: Path, *options: str) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["status", str(target), "--cost", "--json", *options], catch_exceptions=False)
    fields: dict[str, Any] = json.loads(done.stdout)["cost"]
    return fields


def test_the_cost_of_a_run_is_that_of_all_its_starts(
    predict: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[int] = []

    def compute(number: int, reference: Any) -> BlockReport:
        if number == 3 and not failed:
            failed.append(number)
            time.sleep(0.05)
            raise SourceError("a read failed")
        return compute_block(number, reference)

    monkeypatch.setattr(volseg.prediction.run, "compute_block", compute)
    first = predict(roi="0:1,:,:")
    assert (first.done, failed) == (4, [3])
    (kind, usage), *others = cost(tmp_path / "p.zarr")["kinds"].items()
    assert (kind.startswith("cpu"), others) == (True, [])
    assert (usage["blocks"], usage["failures"]) == (4, 1)
    assert 0.05 <= usage["wasted_seconds"] < 0.5
    assert usage["block_seconds"] + usage["wasted_seconds"] < usage["held_seconds"] < 60
    predict(roi="0:1,:,:", resume=True)
    again = cost(tmp_path / "p.zarr")
    assert again["starts"] == 2
    assert sum(usage["blocks"] for usage in again["kinds"].values()) == 4
    assert sum(usage["held_seconds"] for usage in again["kinds"].values()) > usage["held_seconds"]


def test_a_run_with_prices_says_what_it_cost(predict: Callable[..., Any], small_model: Path, tmp_path: Path) -> None:
    predict()
    prices = tmp_path / "prices.toml"
    prices.write_text("thousand_writes = 5.0\n[worker_hour]\ncpu = 3600.0\n")
    found = cost(tmp_path / "p.zarr", "--prices", str(prices))
    held = sum(usage["held_seconds"] for usage in found["kinds"].values())
    assert found["money"]["amount"] == pytest.approx([held] * 3)
    assert found["writes"] == 0  # of a file system
    command = ["predict", str(tmp_path / "raw.zarr"), str(tmp_path / "q.zarr"), "--model", str(small_model)]
    prices.write_text("[worker_hour]\nH100 = 1.0\n")
    done = CliRunner().invoke(main, [*command, "--cluster", "serial", "--prices", str(prices)])
    assert (done.exit_code, "no worker_hour for 'cpu" in done.stderr) == (0, True)  # the map is right
    refused = CliRunner().invoke(main, ["status", str(tmp_path / "p.zarr"), "--cost", "--prices", str(prices)])
    assert (refused.exit_code, "only for H100" in refused.stderr) == (2, True)


def test_a_worker_is_held_from_its_joining_to_its_leaving() -> None:
    executor = SerialExecutor(wasted={"a": 3.0})
    with mock.patch("volseg.prediction.usage.time.monotonic", side_effect=[0.0, 10.0, 30.0]):
        meter = UsageMeter(executor)
        for workers in (("a", "b"), ("b",)):
            object.__setattr__(executor, "workers", workers)
            meter._look()
    meter.counting(lambda *_: None)(BlockReport(0, 8, "", 5.0, 4.0, bytes=7, kind="gpu"), 1, "a")
    kinds = meter.usage().kinds
    assert kinds["gpu"] == KindUsage(10.0, 5.0, 3.0, 1, 0, 7)
    assert kinds[""] == KindUsage(30.0)


def test_damaged_logs_are_left_out(tmp_path: Path) -> None:
    usages = [StartUsage(f"2026-01-0{day}T00:00:00Z", 60.0, {"gpu": KindUsage(60.0, 30.0, 1.0, day)}) for day in (2, 1)]
    for number, usage in enumerate(usages):
        UsageLog(tmp_path, str(number)).write(usage)
    for name, content in {
        "text": b"x", "list": b"[]", "kinds": b'{"kinds": 1}',
        "nan": b'{"started": "", "seconds": NaN, "run": "", "kinds": {}}',
        "field": b'{"started": "", "seconds": 1, "run": "", "kinds": {"gpu": {"held": 1}}}',
        "text-in-field": b'{"started": "", "seconds": 1, "run": "", "kinds": {"gpu": {"held_seconds": "1"}}}',
        "negative": b'{"started": "", "seconds": 1, "run": "", "kinds": {"gpu": {"held_seconds": -1}}}',
    }.items():  # fmt: skip
        (tmp_path / f"usage-{name}.json").write_bytes(content)
    UsageLog(tmp_path, "other").write(replace(usages[0], run="another"))
    assert read_usage(tmp_path) == usages[::-1]
    assert total_usage(read_usage(tmp_path)) == {"gpu": KindUsage(120.0, 60.0, 2.0, 3)}
