"""A training run, from its run file to a model file, a log and pictures."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from volseg.errors import TrainingError, VolsegError
from volseg.models.model import save_model
from volseg.training import LabelledVolume, load_labelled
from volseg.training.loop import Trained, fit
from volseg.view.curves import save_curves
from volseg.view.pictures import save_panel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from volseg.evaluation import PixelScores
    from volseg.models import ModelHeader
    from volseg.runfiles import TrainConfig


class Screen(Protocol):
    """Anything that shows a training to a person."""

    def step(self, step: int, loss: float, share: float) -> None:
        """A step is done."""

    def note(self, line: str) -> None:
        """Something worth a line."""


def train(config: TrainConfig, screen: Screen) -> tuple[ModelHeader, Trained]:
    """Train a network and write FOLDER/NAME.safetensors, log.jsonl, curves.png and validation.png.

    Raises:
        VolsegError: data, network or settings that do not fit, before the first step; a loss that is no number.
    """
    folder = Path(config.output.folder)
    model_file = folder / f"{config.output.name}.safetensors"
    if model_file.exists():
        raise TrainingError(
            f"{model_file} exists already; choose another output.name and output.folder, or move it away"
        )
    if (folder / "log.jsonl").exists():
        raise TrainingError(
            f"{folder} holds the log of another training; choose another output.folder, or move it away"
        )
    whole = load_labelled(config.data)
    learned = whole.sections(*config.data.train)
    held_out = None if config.data.validation is None else whole.sections(*config.data.validation)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = (folder / "log.jsonl").open("w")
    except OSError as error:
        raise TrainingError(f"cannot write into {folder}: {error.strerror}; choose another output.folder") from error
    about = {
        "name": config.output.name,
        "license": config.data.license,
        "training": {"data": config.data.model_dump(mode="json"), "fit": config.fit.model_dump(mode="json")},
    }
    with log:
        diary = _Diary(log, folder, held_out, screen)
        try:
            trained = fit(learned, held_out, config.network, config.fit, diary, about)
        except VolsegError:
            if not log.tell():  # refused before the first step: the mended run file may start anew
                (folder / "log.jsonl").unlink()
            raise
    header = save_model(model_file, trained.network, trained.card)
    save_curves(folder / "curves.png", trained.losses, diary.scores)
    return header, trained


class _Diary:
    """Writes the log and the validation pictures, and tells the screen."""

    def __init__(self, log: Any, folder: Path, held_out: LabelledVolume | None, screen: Screen) -> None:
        self._log = log
        self._folder = folder
        self._held_out = held_out
        self._screen = screen
        self._started = time.monotonic()
        self.scores: list[tuple[int, float]] = []

    def step(self, step: int, loss: float, learning_rate: float, share: float) -> None:
        """Log a step."""
        self._write({"step": step, "loss": loss, "learning_rate": learning_rate})
        self._screen.step(step, loss, share)

    def validated(self, step: int, scores: PixelScores, probability: NDArray[np.float32], *, best: bool) -> None:
        """Log a validation, and draw it if it is the best so far."""
        self.scores.append((step, scores.best_f1))
        self._write({"step": step, "validation_f1": scores.best_f1, "average_precision": scores.average_precision})
        mark = " (best so far)" if best else ""
        self._screen.note(
            f"step {step}: validation F1 {scores.best_f1:.4f} at threshold {scores.best_threshold:.2f}, "
            f"average precision {scores.average_precision:.4f}{mark}"
        )
        if best and self._held_out is not None:
            middle = len(probability) // 2
            save_panel(
                self._folder / "validation.png",
                [
                    ("raw", self._held_out.raw[middle]),
                    ("truth", self._held_out.membrane[middle]),
                    ("probability", probability[middle]),
                ],
                title=f"step {step}, F1 {scores.best_f1:.3f}",
                voxel_nm=self._held_out.voxel_nm,
            )

    def _write(self, entry: dict[str, float]) -> None:
        seconds = round(time.monotonic() - self._started, 2)
        self._log.write(json.dumps({**entry, "seconds": seconds}) + "\n")
        self._log.flush()
