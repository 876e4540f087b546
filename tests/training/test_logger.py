"""What a training leaves in its folder: figures for TensorBoard, and no more entries than it has steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.training.runs import learn, log_of, make_stripes, run
from volseg.errors import TrainingError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # by TensorBoard and what it loads
def test_tensorboard_shows_what_the_log_tells(tmp_path: Path) -> None:
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs pip install 'volseg[tensorboard]'"
    )
    output = {"tensorboard": True}
    config = run(make_stripes(tmp_path), tmp_path / "run", fit={"steps": 6}, validation={"every": 3}, output=output)
    learn(config, stop_after=4)
    learn(config, resume=True)
    board = reading.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    told = {entry["step"]: entry["loss"] for entry in log_of(tmp_path / "run") if "loss" in entry}
    assert {event.step: pytest.approx(event.value, rel=1e-5) for event in board.Scalars("loss")} == told
    assert [event.step for event in board.Scalars("validation_f1")] == [3, 6]
    assert [event.step for event in board.Images("validation")] == [3, 6]


def test_without_tensorboard_it_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volseg.training.tensorboard.find_spec", lambda name: None)
    output = {"tensorboard": True}
    with pytest.raises(TrainingError, match=r"not installed; pip install 'volseg\[tensorboard\]', or leave it out"):
        learn(run(make_stripes(tmp_path), tmp_path / "run", output=output))
    assert not any((tmp_path / "run").iterdir())


def test_a_picture_that_cannot_be_drawn_is_one_line(tmp_path: Path) -> None:
    data = make_stripes(tmp_path)
    (tmp_path / "run" / "curves.png").mkdir(parents=True)
    with pytest.raises(TrainingError, match=r"cannot write .*curves.png: Is a directory; make room"):
        learn(run(data, tmp_path / "run", fit={"steps": 1}))
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
