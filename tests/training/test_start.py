"""A training starts from weights by stages, says which layers it took, and keeps that through a resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.models.interop.classifiers import random_classifier
from tests.training.runs import RecordingReporter, log_of, make_config, make_stripes, train_config
from volseg.errors import ConfigError, ModelError
from volseg.models import read_card
from volseg.models.model import load_model_file
from volseg.training.run import train

if TYPE_CHECKING:
    from pathlib import Path

SMALL = {"width": 2, "padded": True}
QUICK: dict[str, Any] = {"fit": {"steps": 2}, "data": {"validation": []}, "patches": {"batch": 1}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_stripes(tmp_path_factory.mktemp("stripes"))
    torch.save(random_classifier(width=2).state_dict(), folder / "vgg.pt")
    return folder


def test_an_fcn_is_trained_by_stages_from_a_classifier(data: Path, tmp_path: Path) -> None:
    start = data / "vgg.pt"
    for kind, taken, fresh in (
        ("fcn32s", 15, ["head"]),
        ("fcn16s", 16, ["scores.0"]),
        ("fcn8s", 18, ["scores.1"]),
    ):
        network = {"name": kind, "arguments": SMALL, "start": str(start)}
        config = make_config(data, tmp_path / kind, network=network, **QUICK)
        reporter = RecordingReporter()
        train(config, reporter)
        assert reporter.notes[0].startswith(f"start from {start}: {taken} layers taken: ")
        assert reporter.notes[1].endswith(f"not in the file: {fresh[0]}")
        first, *steps = log_of(tmp_path / kind)
        assert (first["step"], first["start"]["file"], first["start"]["fresh"]) == (0, str(start), fresh)
        assert [entry["step"] for entry in steps] == [1, 2]
        start = config.output.model
        assert read_card(start).card.training["start"] == first["start"]
        # The new scores learn from the first step on.
        assert load_model_file(start).network.state_dict()[f"{fresh[0]}.weight"].any()


def test_a_resume_needs_no_start_and_remembers_it(data: Path, tmp_path: Path) -> None:
    (tmp_path / "vgg.pt").write_bytes((data / "vgg.pt").read_bytes())
    network = {"name": "fcn32s", "arguments": SMALL, "start": str(tmp_path / "vgg.pt")}
    config = make_config(data, tmp_path / "run", network=network, **QUICK)
    train_config(config, stop_after=1)
    (tmp_path / "vgg.pt").unlink()
    train_config(config, resume=True)
    assert [entry["step"] for entry in log_of(tmp_path / "run")] == [0, 1, 2]
    assert read_card(config.output.model).card.training["start"]["file"] == str(tmp_path / "vgg.pt")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            {"name": "fcn32s", "arguments": {"width": 4, "padded": True}},
            r"has features.0.weight \(2, 3, 3, 3\) where the network has",
        ),
        ({"name": "unet", "arguments": {"width": 4}}, "is a VGG16 classifier, which starts fcn32s"),
        (
            {"name": "fcn32s", "arguments": SMALL, "start": "none.pt"},
            "'none.pt' is neither a file nor a packaged model",
        ),
    ],
)
def test_a_start_that_does_not_fit_is_refused_before_the_data_are_read(
    data: Path, tmp_path: Path, network: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volseg.training.setup.training_statistics", lambda *_: pytest.fail("the data are read"))
    config = make_config(data, tmp_path / "run", network={"start": str(data / "vgg.pt"), **network}, **QUICK)
    with pytest.raises((ConfigError, ModelError), match=message):
        train_config(config)
    assert list((tmp_path / "run").iterdir()) == []
