"""`volseg verify`: what it prints, its JSON, its exit codes."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

import volseg
from volseg.cli.main import main
from volseg.testing.factories import make_model, make_volume
from volseg.testing.targets import make_target, noise_record

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def verify(target: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["verify", str(target), "--cluster", "serial", *options], catch_exceptions=False)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return make_target(tmp_path / "t.zarr", noise_record(), empty={3})


def test_a_sound_map_is_exit_0_and_says_what_was_compared(target: Path) -> None:
    result = verify(target)
    assert result.exit_code == 0, result.output
    assert f"{target}: sound and complete\n18 blocks (1 empty) compared" in result.stdout


def test_damage_is_exit_3_with_block_and_file(target: Path) -> None:
    (target / "0" / "c" / "1" / "0" / "1").unlink()
    for number in range(6):
        (target / f"stray{number}").touch()
    result = verify(target)
    assert result.exit_code == 3
    assert "DAMAGED and complete" in result.stdout
    assert "damage: missing, 1: shards are missing\n  block 10: 0/c/1/0/1\n" in result.stdout
    assert "warning: stray, 6: files that are not of the run\n" in result.stdout
    assert "  and 1 more" in result.stdout
    assert "volseg verify TARGET --repair" in result.stdout
    report = json.loads(verify(target, "--json").stdout)
    assert (report["sound"], report["complete"], report["seams"], report["repaired"]) == (False, True, None, None)
    example = {"path": "0/c/1/0/1", "reason": "", "block": 10}
    assert report["damaged"] == {"missing": {"count": 1, "examples": [example]}}
    assert report["warnings"]["stray"]["count"] == 6


def test_an_unfinished_map_is_exit_3_and_names_resume(tmp_path: Path) -> None:
    result = verify(make_target(tmp_path / "t.zarr", noise_record(), unmarked={0}))
    assert result.exit_code == 3
    assert "sound and INCOMPLETE, 1 of 18 blocks not done" in result.stdout
    assert "volseg predict command, with --resume" in result.stdout


def test_what_cannot_be_verified_is_exit_1_and_wrong_options_are_exit_2(target: Path, tmp_path: Path) -> None:
    assert verify(tmp_path / "nothing.zarr").exit_code == 1
    assert verify(target, "--model", "m.safetensors").exit_code == 2
    assert verify(target, "--workers", "2").exit_code == 2


def test_a_stop_names_the_way_to_go_on(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("volseg.prediction.verification.verify.check_shards", stop)
    result = verify(target)
    assert (result.exit_code, "rerun the command with --resume" in result.stderr) == (4, True)


def test_a_repair_takes_source_and_model_from_where_they_moved(tmp_path: Path) -> None:
    raw, model = make_volume(tmp_path / "raw.zarr", (2, 32, 64)), make_model(tmp_path / "m.safetensors")
    target = tmp_path / "t.zarr"
    where: Any = {"block": (1, 32, 32), "halo": (0, 8, 8), "tile": (1, 32, 32), "precision": "float32"}
    volseg.predict(str(raw), str(target), model=str(model), cluster="serial", **where)
    shard = target / "0" / "c" / "1" / "0" / "1"
    before = shard.read_bytes()
    shard.unlink()
    moved = [shutil.move(path, tmp_path / name) for path, name in ((raw, "moved.zarr"), (model, "moved.safetensors"))]
    assert "give its new place with --model" in verify(target, "--repair").stderr
    missing = verify(target, "--repair", "--model", str(moved[1]))
    assert (missing.exit_code, "give its new place with --source" in missing.stderr) == (1, True)
    other = make_model(tmp_path / "other.safetensors", seed=3)
    refused = verify(target, "--repair", "--model", str(other), "--source", str(moved[0]))
    assert (refused.exit_code, "was started with another model" in refused.stderr) == (1, True)
    result = verify(target, "--repair", "--model", str(moved[1]), "--source", str(moved[0]))
    assert result.exit_code == 0, result.output
    assert "repaired: 1 block computed again (1 with the voxels that were marked)" in result.stdout
    assert shard.read_bytes() == before
