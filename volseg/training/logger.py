"""What a training leaves in its folder while it goes on."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from volseg.errors import TrainingError
from volseg.models.model import save_model
from volseg.ops import to_uint8
from volseg.plots.curves import save_curves
from volseg.plots.panel import save_panel
from volseg.training.checkpoint import replace_file, write_checkpoint
from volseg.training.tensorboard import Board, refuse_without_tensorboard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import RawIOBase
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from volseg.blocks import ZyxFloat
    from volseg.config import OutputConfig
    from volseg.models.model import Model
    from volseg.training.checkpoint import Checkpoint
    from volseg.training.job import ProgressReporter, Step
    from volseg.training.validation import Validated

_QUIET_SECONDS = 5.0
"""Between two lines on work before the first step."""


class RunLogger:
    """Writes the log, the pictures and the model files of a training, and tells the screen."""

    def __init__(
        self, output: OutputConfig, voxel_nm: ZyxFloat, screen: ProgressReporter, resumed_step: int = 0
    ) -> None:
        """Nothing is written before the first step, and by the first process alone.

        Args:
            output: the run file's table.
            voxel_nm: of the pictures' sections (z, y, x).
            screen: told what is written.
            resumed_step: where the training goes on; what the log tells of later steps is dropped.
        """
        self._output, self._screen, self._voxel_nm = output, screen, voxel_nm
        self._resumed_step = resumed_step
        if output.tensorboard:
            refuse_without_tensorboard()
        self._board: Board | None = None
        self._log: RawIOBase | None = None
        self._entries: list[dict[str, Any]] = []
        self._told_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is not None:
            self._log.close()
        if self._board is not None:
            self._board.close()

    def step(self, done: Step) -> None:
        """Log a step."""
        times = {"seconds": round(done.seconds, 3), "waited": round(done.waited, 3)}
        self._write({"step": done.number, "loss": done.loss, "learning_rate": done.rate, **times})
        self._screen.step(done.number, done.loss, done.share, done.waited / max(done.seconds, 1e-9))

    def preparing(self, what: str, done: int, total: int) -> None:
        """Say now and then how far the work before the first step is."""
        if time.monotonic() > self._told_at + _QUIET_SECONDS:
            self._told_at = time.monotonic()
            self._screen.note(f"{what}: {done} of {total} sections")

    def validated(self, done: Validated) -> None:
        """Log a validation and draw it."""
        figures = {f"validation_{name}": value for name, value in done.figures().items()}
        self._write({"step": done.step, **figures, "best": done.best})
        told = ", ".join(f"{name} {value:.4f}" for name, value in done.figures().items())
        self._screen.note(f"step {done.step}: {told}{' (best so far)' if done.best else ''}")
        title = f"step {done.step}, {told}"
        _, last, best = self._output.pictures
        for path in (last, best) if done.best else (last,):
            save_panel(path, done.columns, title=title, voxel_nm=self._voxel_nm)
        if self._board is not None:
            pictures = [_as_bytes(section) for _, section in done.columns]
            with _told(self._output.log.parent):
                self._board.picture(done.step, "validation", np.concatenate(pictures, axis=1))

    def keep(self, model: Model, checkpoint: Checkpoint, *, best: bool) -> None:
        """Write what lets people use the network, and the training go on."""
        for path in (self._output.last_model, self._output.model) if best else (self._output.last_model,):
            save_model(path, model.network, model.card, float16=self._output.float16)
        write_checkpoint(self._output.checkpoint, checkpoint)
        with _told(self._output.pictures[0]):
            save_curves(self._output.pictures[0], self._entries)
            if self._board is not None:
                self._board.flush()

    def _write(self, entry: dict[str, Any]) -> None:
        log = self._log or self._begin()
        self._entries.append(entry)
        with _told(self._output.log):
            log.write(json.dumps(entry).encode() + b"\n")
            if self._board is not None:
                self._board.numbers(entry["step"], {k: v for k, v in entry.items() if k != "step"})

    def _begin(self) -> RawIOBase:
        """Open the log; of a training that was resumed only what the checkpoint knows of is kept."""
        path = self._output.log
        with _told(path):
            self._entries = [entry for entry in _entries(path) if entry["step"] <= self._resumed_step]
            kept = "".join(json.dumps(entry) + "\n" for entry in self._entries)
            replace_file(path, kept.encode())
            self._log = path.open("ab", buffering=0)
            if self._output.tensorboard:
                self._board = Board(path.parent / "tensorboard", self._resumed_step)
        return self._log


def _entries(log: Path) -> list[dict[str, Any]]:
    """What a log tells; a line that was cut short tells nothing."""
    entries = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        with suppress(ValueError):
            entries.append(json.loads(line))
    return entries


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """A file system's no as one line.

    Raises:
        TrainingError: it said no.
    """
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"cannot write {path}: {error.strerror}; make room, then go on from the last checkpoint by --resume"
        ) from error


def _as_bytes(section: NDArray[Any]) -> NDArray[np.uint8]:
    """A section as a picture (y, x, 3)."""
    grey = section if section.dtype == np.uint8 else to_uint8(section.astype(np.float32))
    return np.repeat(grey[..., None], 3, axis=2)
