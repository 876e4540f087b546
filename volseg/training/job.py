"""A training job and its observers: values and Protocols."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from volseg.config.train_tables import TrainingSettings
    from volseg.models.model import Model
    from volseg.training.checkpoint import Checkpoint
    from volseg.training.data.volumes import LabelledVolume
    from volseg.training.distributed import Processes
    from volseg.training.validation import Validated


class Watcher(Protocol):
    """Anything that wants to see a training go on; it is told by the first process alone."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Before the first step, something was made of so many sections."""

    def step(self, done: Step) -> None:
        """A step is done."""

    def validated(self, done: Validated) -> None:
        """The held-out sections were scored."""

    def keep(self, model: Model, checkpoint: Checkpoint, *, best: bool) -> None:
        """The averaged weights as they are, the best so far or not, and all that it takes to go on from them."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        number: from 1.
        loss: of its patches.
        rate: the learning rate.
        share: how much of the training is over.
        seconds: since the training began, pauses before a resume left out.
        waited: of these, seconds that the device waited for patches; the first batch, with the start of the workers,
            left out.
    """

    number: int
    loss: float
    rate: float
    share: float
    seconds: float
    waited: float


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        settings: the run file's.
        volumes: what it learns from and is validated on.
        about: fields for the model's card: name, license, and `training`, to which steps and scores are added.
        processes: those that train together.
        stopping: asked after each step; once it says so, the training stops where it can be resumed.
        resumed: where to go on; None to begin.
    """

    settings: TrainingSettings
    volumes: Sequence[LabelledVolume]
    about: dict[str, Any]
    processes: Processes
    stopping: Callable[[], bool] = lambda: False
    resumed: Checkpoint | None = None


class ProgressReporter(Protocol):
    """Anything that shows a training to a person."""

    def step(self, step: int, loss: float, share: float, waited: float) -> None:
        """A step is done: `share` of the training is over, for `waited` of that time the device waited for data."""

    def note(self, line: str) -> None:
        """Something worth a line."""
