"""Several drivers that each compute a part of a run write the bytes of one driver, in any order, killed or not."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

import volseg
from volseg.blocks import BlockSet, Part, PyramidGrid
from volseg.cli.main import main
from volseg.errors import ConfigError, ResumeError, TargetError
from volseg.prediction.status import run_status
from volseg.storage import journal_folder, lock_journal, lock_part, read_marks, read_record
from volseg.testing.factories import make_volume

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (2, 96, 80)
OPTIONS: dict[str, Any] = {
    "cluster": "serial", "device": "cpu", "precision": "float32", "halo": "exact", "block": (1, 16, 32), "levels": 3,
}  # fmt: skip
BLOCKS, COARSER = 36, 5 * 2


def contents(target: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(target)): file.read_bytes()
        for file in sorted(target.rglob("*"))
        if file.is_file() and ".volseg" not in file.parts and file.name != "zarr.json"
    }


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make_volume(tmp_path / "raw.zarr", SHAPE)


@pytest.fixture
def whole(raw: Path, small_model: Path, tmp_path: Path) -> Path:
    volseg.predict(str(raw), str(tmp_path / "whole.zarr"), model=str(small_model), **OPTIONS)
    return tmp_path / "whole.zarr"


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_parts_in_any_order_are_the_whole(
    raw: Path, whole: Path, small_model: Path, tmp_path: Path, order: tuple[int, ...]
) -> None:
    target, coarser_left = tmp_path / "parts.zarr", None
    for turn, number in enumerate(order, 1):
        done = volseg.predict(str(raw), str(target), model=str(small_model), part=f"{number}/3", **OPTIONS)
        assert (done.part, done.blocks, done.done, done.left) == (f"{number}/3", 12, 12, BLOCKS - 12 * turn)
        coarser_left = done.coarser_left
        assert run_status(target).state == ("stopped" if turn < 3 else "complete")
    assert contents(target) == contents(whole)
    assert coarser_left == 0
    assert len(list(read_marks(journal_folder(target)))) == read_record(target).pyramid.count
    assert volseg.verify(str(target), deep=True, seams=False, cluster="serial").sound
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".parts")] == []
    next(file for file in sorted(target.glob("0/c/1/*/*"))).unlink()  # of block 18, which is the second part's
    for part, made in (("1/3", 0), ("2/3", 1), ("2/3", 0)):
        again = volseg.predict(str(raw), str(target), model=str(small_model), part=part, **OPTIONS)
        assert (again.already_done, again.done, again.left) == (12 - made, made, 0)
    assert contents(target) == contents(whole)


@pytest.mark.slow
def test_parts_at_once_one_of_them_killed_and_resumed_as_another_number_of_parts(
    raw: Path, whole: Path, small_model: Path, tmp_path: Path
) -> None:
    target = tmp_path / "parts.zarr"

    def start(part: str) -> subprocess.Popen[str]:
        command = [
            sys.executable, "-m", "volseg", "predict", str(raw), str(target), "--model", str(small_model),
            "--part", part, "--cluster", "serial", "--device", "cpu", "--precision", "float32", "--halo", "exact",
            "--block", "1,16,32", "--levels", "3",
        ]  # fmt: skip
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    drivers = [start(f"{number}/4") for number in (1, 2, 3)]
    said = [driver.communicate() for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0, 0], said
    assert run_status(target).done == 27
    killed = start("4/4")
    killed.kill()
    killed.communicate()
    drivers = [start(f"{number}/2") for number in (1, 2)]
    said = [driver.communicate() for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    assert run_status(target).state == "complete"
    assert contents(target) == contents(whole)


def test_a_part_beside_itself_the_whole_or_another_cut_is_refused(
    raw: Path, whole: Path, small_model: Path, tmp_path: Path
) -> None:
    folder, options = journal_folder(whole), {"model": str(small_model), **OPTIONS}
    with lock_part(folder, Part(2, 3)):
        assert run_status(whole).state == "running"
        with pytest.raises(TargetError, match="another driver computes part 2/3 of"):
            volseg.predict(str(raw), str(whole), part="2/3", **options)
        with pytest.raises(TargetError, match="part 2/3 of .* is being computed, and 1/4 cuts it otherwise"):
            volseg.predict(str(raw), str(whole), part="1/4", **options)
        with pytest.raises(TargetError, match="part 2/3 of .* is being computed; wait"):
            volseg.predict(str(raw), str(whole), resume=True, **options)
        with pytest.raises(TargetError, match="another run is writing"):
            volseg.predict(str(raw), str(whole), overwrite=True, **options)
        with pytest.raises(TargetError, match="another run is writing"):
            volseg.pyramid(whole, overwrite=True)
        assert volseg.predict(str(raw), str(whole), part="1/3", **options).already_done == 12
    with lock_journal(folder), pytest.raises(TargetError, match="another run is writing"):
        volseg.predict(str(raw), str(whole), part="1/3", **options)
    with pytest.raises(ConfigError, match="delete the target instead"):
        volseg.predict(str(raw), str(whole), part="1/3", overwrite=True, **options)
    with pytest.raises(ResumeError, match="another block"):
        volseg.predict(str(raw), str(whole), part="1/3", **{**options, "block": (1, 32, 32)})
    with pytest.raises(ConfigError, match="is in an object store, where one driver owns a target"):
        volseg.predict(str(raw), "s3://bucket/map.zarr", part="1/3", **options)
    said = CliRunner().invoke(
        main, ["predict", str(raw), str(whole), "--model", str(small_model), "--part", "1/99", "--cluster", "serial"]
    )
    assert said.output.splitlines()[-1] == "part 1/99: all parts are done", "also of one without a block"
    for part in ("0/3", "4/3", "1", "a/b", "1/-2"):
        said = CliRunner().invoke(main, ["predict", str(raw), "x.zarr", "--model", "m", "--part", part])
        assert said.exit_code == 2
        assert "is not K/N with K from 1 to N, such as 2/8" in said.output


def test_every_block_belongs_to_one_part_at_most_and_those_of_one_level_to_exactly_one(whole: Path) -> None:
    pyramid: PyramidGrid = read_record(whole).pyramid
    for count in (1, 2, 5, 40):
        parts = [Part(number, count).planned(pyramid, None) for number in range(1, count + 1)]
        numbers = np.concatenate([list(part) for part in parts])
        assert len(set(numbers.tolist())) == len(numbers)
        assert set(range(pyramid.base.count)) <= set(numbers.tolist())
        assert count > 1 or len(numbers) == pyramid.count
    masked = Part(1, 2).planned(pyramid, BlockSet([0, *pyramid.above([0])]))
    assert set(masked) == {0, *pyramid.above([0])}, "what is made of it alone"
