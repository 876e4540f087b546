"""Log, images, model files and checkpoints of a training."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from volseg.errors import TrainingError
from volseg.models.model import save_model
from volseg.ops import to_uint8
from volseg.plots.curves import save_training_curves
from volseg.plots.panel import save_panel
from volseg.text import counted
from volseg.training.checkpoint import write_atomic, write_checkpoint
from volseg.training.tensorboard import TensorBoardWriter, require_tensorboard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import RawIOBase
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from volseg.blocks import ZyxFloat
    from volseg.config import OutputConfig
    from volseg.models.interop.initial_weights import InitialWeights
    from volseg.models.model import Model
    from volseg.training.checkpoint import Checkpoint
    from volseg.training.job import ProgressReporter, StepResult
    from volseg.training.validation import ValidationResult

_SETUP_REPORT_SECONDS = 5.0
"""Between two messages on the work before the first step."""


class RunLogger:
    """Writes all output files of a training, and reports to the user; a `TrainerCallback`."""

    def __init__(
        self, output: OutputConfig, voxel_nm: ZyxFloat, reporter: ProgressReporter, resumed_step: int = 0
    ) -> None:
        """Check the options; nothing is written before the first step.

        Args:
            output: the `[output]` table.
            voxel_nm: voxel size (z, y, x) of the images.
            reporter: shows progress to the user.
            resumed_step: step of the checkpoint; log entries of later steps are dropped.
        """
        self._output, self._reporter, self._voxel_nm = output, reporter, voxel_nm
        self._resumed_step = resumed_step
        if output.tensorboard:
            require_tensorboard()
        self._tensorboard: TensorBoardWriter | None = None
        self._log: RawIOBase | None = None
        self._entries: list[dict[str, Any]] = []
        self._last_report = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is not None:
            self._log.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def on_setup_progress(self, task: str, done: int, total: int) -> None:
        """Report the work before the first step every few seconds."""
        if time.monotonic() > self._last_report + _SETUP_REPORT_SECONDS:
            self._last_report = time.monotonic()
            self._reporter.note(f"{task}: {done} of {counted(total, 'section')}")

    def on_initial_weights(self, weights: InitialWeights) -> None:
        """Log and report where the initial weights come from."""
        with _translate_os_error(self._output.log):
            (self._log or self._open_log()).write(json.dumps({"step": 0, "start": asdict(weights)}).encode() + b"\n")
        for line in weights.lines():
            self._reporter.note(line)

    def on_step(self, step: StepResult) -> None:
        """Log and report a step."""
        times = {"seconds": round(step.seconds, 3), "waited": round(step.wait_seconds, 3)}
        self._write({"step": step.step, "loss": step.loss, "learning_rate": step.learning_rate, **times})
        self._reporter.step(step.step, step.loss, step.progress, step.wait_seconds / max(step.seconds, 1e-9))

    def on_validation(self, result: ValidationResult) -> None:
        """Log, report and draw a validation."""
        scores = {f"validation_{name}": value for name, value in result.scores().items()}
        self._write({"step": result.step, **scores, "best": result.best})
        text = ", ".join(f"{name} {value:.4f}" for name, value in result.scores().items())
        self._reporter.note(f"step {result.step}: {text}{' (best so far)' if result.best else ''}")
        for path in (self._output.last_image, self._output.best_image)[: 1 + result.best]:
            save_panel(path, result.images, title=f"step {result.step}, {text}", voxel_nm=self._voxel_nm)
        if self._tensorboard is not None:
            image = np.concatenate([_to_rgb(image) for _, image in result.images], axis=1)
            with _translate_os_error(self._output.log.parent):
                self._tensorboard.add_image(result.step, "validation", image)

    def on_save(self, model: Model, checkpoint: Checkpoint, *, best: bool) -> None:
        """Write the model files, the checkpoint and the curves."""
        for path in (self._output.last_model, self._output.model)[: 1 + best]:
            save_model(path, model.network, model.card, float16=self._output.float16)
        write_checkpoint(self._output.checkpoint, checkpoint)
        with _translate_os_error(self._output.curves):
            save_training_curves(self._output.curves, self._entries)
            if self._tensorboard is not None:
                self._tensorboard.flush()

    def _write(self, entry: dict[str, Any]) -> None:
        log = self._log or self._open_log()
        self._entries.append(entry)
        with _translate_os_error(self._output.log):
            log.write(json.dumps(entry).encode() + b"\n")
            if self._tensorboard is not None:
                scalars = {name: value for name, value in entry.items() if name != "step"}
                self._tensorboard.add_scalars(entry["step"], scalars)

    def _open_log(self) -> RawIOBase:
        """Open the log without its entries after the checkpoint."""
        path = self._output.log
        with _translate_os_error(path):
            kept = [entry for entry in _read_log(path) if entry["step"] <= self._resumed_step]
            self._entries = [entry for entry in kept if "start" not in entry]
            write_atomic(path, "".join(json.dumps(entry) + "\n" for entry in kept).encode())
            self._log = path.open("ab", buffering=0)
            if self._output.tensorboard:
                self._tensorboard = TensorBoardWriter(path.parent / "tensorboard", self._resumed_step)
        return self._log


def _read_log(path: Path) -> list[dict[str, Any]]:
    """Read the entries of a log, without incomplete lines."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with suppress(ValueError):
            entries.append(json.loads(line))
    return entries


@contextmanager
def _translate_os_error(path: Path) -> Iterator[None]:
    """Translate OSError into TrainingError.

    Raises:
        TrainingError: a file could not be written.
    """
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"cannot write {path}: {error.strerror}; free some space, then rerun with --resume"
        ) from error


def _to_rgb(section: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert a section (y, x) of uint8 or of values in [0, 1] to an image (y, x, 3)."""
    grey = section if section.dtype == np.uint8 else to_uint8(section.astype(np.float32))
    return np.repeat(grey[..., None], 3, axis=2)
