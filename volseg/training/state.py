"""Where a training stands: how much of it is over, what was best so far, and what lets it go on later."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from volseg.errors import ResumeError
from volseg.evaluation.metrics import PixelScores
from volseg.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from volseg.config.train_tables import FitSettings, TrainingSettings
    from volseg.models.card import ModelCard
    from volseg.training.distributed import Processes
    from volseg.training.validation import Validated

_MAY_DIFFER = {
    "data": {"license"},
    "fit": {"steps", "minutes", "device", "compile"},
    "patches": {"workers"},
    "validation": {"every", "patience"},
}
"""What a resumed training may be told otherwise: how long and on what, not what is learned."""


class Clock:
    """How much of a training is over, by steps or by time, whichever ends first."""

    def __init__(self, settings: FitSettings, before: float) -> None:
        """Start now.

        Args:
            settings: the run file's.
            before: seconds that it took before it was stopped and resumed.
        """
        self._settings = settings
        self._started = time.monotonic() - before

    @property
    def seconds(self) -> float:
        """Taken so far, pauses before a resume left out."""
        return time.monotonic() - self._started

    def share(self, steps: int) -> float:
        """How much is over after so many steps; 1 at the end."""
        minutes = self._settings.minutes
        timed = 0.0 if minutes is None else self.seconds / (60 * minutes)
        return max(steps / self._settings.steps, timed)


@dataclass
class Course:
    """What a training has come to.

    Attributes:
        seconds: taken.
        waited: of these, seconds that the device waited for patches.
        best: scores of the best step on the held-out sections, with its number and the score that selects.
        stale: validations since then.
    """

    seconds: float = 0.0
    waited: float = 0.0
    best: dict[str, float] | None = None
    stale: int = 0

    def over(self, patience: int | None) -> bool:
        """Whether no validation was better for too long."""
        return patience is not None and self.stale >= patience

    @property
    def best_value(self) -> float | None:
        """The best step's selecting score; None before the first validation."""
        return None if self.best is None else self.best["value"]

    @property
    def best_scores(self) -> PixelScores | None:
        """The best step's pixel scores; None before the first validation."""
        fields = PixelScores.__dataclass_fields__
        return None if self.best is None else PixelScores(**{name: self.best[name] for name in fields})

    def note(self, done: Validated) -> None:
        """Remember a validation if it is the best, and count it if it is not."""
        self.stale = 0 if done.best else self.stale + 1
        if not done.best:
            return
        self.best = {**asdict(done.pixels), "step": done.step, "value": done.value}
        if done.segmentation is not None:
            self.best |= {"v_rand": done.segmentation.best_v_rand, "v_info": done.segmentation.best_v_info}

    def described(self, card: ModelCard, step: int) -> ModelCard:
        """The card of the weights at a step, with the scores that have been reached until then."""
        results: dict[str, Any] = {"steps": step, "seconds": round(self.seconds, 1)}
        if self.best is not None:
            kept = {"step": "best_step", "best_f1": "validation_f1", "best_threshold": "threshold"}
            kept |= {name: f"validation_{name}" for name in ("average_precision", "v_rand", "v_info")}
            results |= {told: round(self.best[name], 4) for name, told in kept.items() if name in self.best}
        return card.model_copy(update={"training": {**card.training, **results}})

    def checkpoint(self, learner: Checkpoint, settings: TrainingSettings, processes: Processes) -> Checkpoint:
        """All that it takes to go on from here."""
        facts = {"course": asdict(self), "settings": settings.model_dump(mode="json"), "processes": processes.size}
        return Checkpoint(learner.tensors, {**learner.facts, **facts})


def resumed_course(checkpoint: Checkpoint | None, settings: TrainingSettings, processes: Processes) -> Course:
    """Where a checkpoint's training stood; a new course without one.

    Raises:
        ResumeError: the checkpoint's training was told otherwise; the message names the first key that differs.
    """
    if checkpoint is None:
        return Course()
    size = checkpoint.facts["processes"]
    if size != processes.size:
        raise ResumeError(f"this training was begun by {size} process(es), not {processes.size}; start {size} again")
    before, now = checkpoint.facts["settings"], settings.model_dump(mode="json")
    for table, given in now.items():
        tables, once = (part if isinstance(part, list) else [part] for part in (given, before.get(table)))
        if len(tables) != len(once):
            raise ResumeError(
                f"this training was begun with {len(once)} [{table}] tables, not {len(tables)}; resume with the run "
                "file it began with"
            )
        for one, other in zip(tables, once, strict=True):
            _refuse_other(table, other or {}, one)
    return Course(**checkpoint.facts["course"])


def _refuse_other(table: str, before: dict[str, Any], given: dict[str, Any]) -> None:
    for key, value in given.items():
        if key not in _MAY_DIFFER.get(table, ()) and before.get(key) != value:
            raise ResumeError(
                f"this training was begun with {table}.{key} {before.get(key)!r}, not {value!r}; resume with the run "
                "file it began with, or begin another in a new output.folder"
            )
