"""A training job and its observers: values and Protocols."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from volseg.config.train_tables import TrainingSettings
    from volseg.models.interop.initial_weights import InitialWeights
    from volseg.models.model import Model
    from volseg.training.checkpoint import Checkpoint
    from volseg.training.data.volumes import LabelledVolume
    from volseg.training.distributed import DistributedContext
    from volseg.training.validation import ValidationResult


class TrainerCallback(Protocol):
    """Receives the events of a training, on rank 0 only."""

    def on_setup_progress(self, task: str, done: int, total: int) -> None:
        """Work before the first step: `done` of `total` sections."""

    def on_initial_weights(self, weights: InitialWeights) -> None:
        """The file whose weights the network starts with, and its layers."""

    def on_step(self, step: StepResult) -> None:
        """An optimizer step."""

    def on_validation(self, result: ValidationResult) -> None:
        """A validation."""

    def on_save(self, model: Model, checkpoint: Checkpoint, *, best: bool) -> None:
        """The EMA weights, possibly the best so far, and the checkpoint to resume from."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of one step.

    Attributes:
        step: from 1.
        loss: mean over the step's patches.
        learning_rate: of the step.
        progress: fraction of the training that is done.
        seconds: training time, without pauses before a resume.
        wait_seconds: part of it in which the device waited for patches; without the first batch, which includes the
            start of the workers.
    """

    step: int
    loss: float
    learning_rate: float
    progress: float
    seconds: float
    wait_seconds: float


@dataclass(frozen=True)
class TrainingJob:
    """One training.

    Attributes:
        settings: of the run file.
        volumes: to train and validate on.
        card_fields: of the model card: name, license, and `training`, to which steps and scores are added.
        distributed: rank, world size and device.
        should_stop: called after each step; if True, the training stops with a checkpoint.
        checkpoint: to resume from; None to start.
    """

    settings: TrainingSettings
    volumes: Sequence[LabelledVolume]
    card_fields: dict[str, Any]
    distributed: DistributedContext
    should_stop: Callable[[], bool] = lambda: False
    checkpoint: Checkpoint | None = None


class ProgressReporter(Protocol):
    """Shows the progress of a training to the user."""

    def step(self, step: int, loss: float, progress: float, wait_fraction: float) -> None:
        """A step; `progress` is the fraction done, `wait_fraction` the fraction of time spent waiting for data."""

    def note(self, line: str) -> None:
        """A message of one line."""


class NullReporter:
    """Discards the progress."""

    def step(self, step: int, loss: float, progress: float, wait_fraction: float) -> None:
        """Do nothing."""

    def note(self, line: str) -> None:
        """Do nothing."""
