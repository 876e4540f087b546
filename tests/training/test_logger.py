"""Output files: TensorBoard events, and one log entry per step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.training.runs import log_of, make_config, make_stripes, train_config
from volseg.errors import ConfigError, TrainingError
from volseg.plots.curves import save_training_curves

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from TensorBoard and its imports
def test_tensorboard_shows_the_log(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs pip install 'volseg[tensorboard]'"
    )
    output = {"tensorboard": True}
    config = make_config(
        make_stripes(tmp_path), tmp_path / "run", fit={"steps": 6}, validation={"every": 3}, output=output
    )
    train_config(config, stop_after=4)
    train_config(config, resume=True)
    events = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    losses = {entry["step"]: entry["loss"] for entry in log_of(tmp_path / "run") if "loss" in entry}
    assert {event.step: pytest.approx(event.value, rel=1e-5) for event in events.Scalars("loss")} == losses
    assert [event.step for event in events.Scalars("validation_f1")] == [3, 6]
    assert [event.step for event in events.Images("validation")] == [3, 6]


def test_a_missing_tensorboard_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volseg.training.tensorboard.find_spec", lambda name: None)
    output = {"tensorboard": True}
    with pytest.raises(ConfigError, match=r"not installed; pip install 'volseg\[tensorboard\]', or remove"):
        train_config(make_config(make_stripes(tmp_path), tmp_path / "run", output=output))
    assert not any((tmp_path / "run").iterdir())


def test_an_image_that_cannot_be_written_is_a_one_line_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volseg.training.logger.save_training_curves", save_training_curves)
    data = make_stripes(tmp_path)
    (tmp_path / "run" / "curves.png").mkdir(parents=True)
    with pytest.raises(TrainingError, match=r"cannot write .*curves.png: Is a directory; free some space"):
        train_config(make_config(data, tmp_path / "run", fit={"steps": 1}))
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
