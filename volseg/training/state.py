"""State of a training: progress, best scores, and what a resume needs."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from volseg.errors import ResumeError, redacted
from volseg.evaluation.metrics import PixelScores
from volseg.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from volseg.config.train_tables import FitSettings, TrainingSettings
    from volseg.models.card import ModelCard
    from volseg.training.distributed import DistributedContext
    from volseg.training.validation import ValidationResult

_MAY_CHANGE = {
    "data": {"license"},
    "fit": {"steps", "minutes", "device", "compile"},
    "patches": {"workers"},
    "validation": {"every", "patience"},
}
"""Settings that may change on resume: duration and hardware, not what is trained."""


class TrainingClock:
    """Progress of a training by steps or by time, whichever ends first."""

    def __init__(self, settings: FitSettings, seconds_before: float) -> None:
        """Start the clock.

        Args:
            settings: the `[fit]` table.
            seconds_before: training time before a resume.
        """
        self._settings = settings
        self._start = time.monotonic() - seconds_before

    @property
    def seconds(self) -> float:
        """Training time, without pauses before a resume."""
        return time.monotonic() - self._start

    def progress(self, steps: int) -> float:
        """Fraction of the training that is done after a number of steps; 1 or more at the end."""
        minutes = self._settings.minutes
        time_fraction = 0.0 if minutes is None else self.seconds / (60 * minutes)
        return max(steps / self._settings.steps, time_fraction)


@dataclass
class TrainingState:
    """Mutable state of a training.

    Attributes:
        seconds: training time.
        wait_seconds: part of it in which the device waited for patches.
        best: validation scores of the best step, with its `step` and the selecting score as `value`.
        validations_since_best: number of validations after the best step.
        start: where the initial weights come from; None if they are random.
    """

    seconds: float = 0.0
    wait_seconds: float = 0.0
    best: dict[str, float] | None = None
    validations_since_best: int = 0
    start: dict[str, Any] | None = None

    @property
    def wait_fraction(self) -> float:
        """Fraction of the time in which the device waited for patches."""
        return self.wait_seconds / max(self.seconds, 1e-9)

    def should_stop_early(self, patience: int | None) -> bool:
        """Whether the last `patience` validations were not better than the best one."""
        return patience is not None and self.validations_since_best >= patience

    @property
    def best_value(self) -> float | None:
        """The best step's selecting score; None before the first validation."""
        return None if self.best is None else self.best["value"]

    @property
    def best_scores(self) -> PixelScores | None:
        """The best step's pixel scores; None before the first validation."""
        fields = PixelScores.__dataclass_fields__
        return None if self.best is None else PixelScores(**{name: self.best[name] for name in fields})

    def update(self, result: ValidationResult) -> None:
        """Record a validation."""
        self.validations_since_best = 0 if result.best else self.validations_since_best + 1
        if not result.best:
            return
        self.best = {**asdict(result.pixels), "step": result.step, "value": result.value}
        if result.segmentation is not None:
            self.best |= {"v_rand": result.segmentation.best_v_rand, "v_info": result.segmentation.best_v_info}

    def update_card(self, card: ModelCard, step: int) -> ModelCard:
        """Add the step, the time and the best scores to the training record of a card."""
        record: dict[str, Any] = {"steps": step, "seconds": round(self.seconds, 1)}
        if self.start is not None:
            record["start"] = self.start
        if self.best is not None:
            keys = {"step": "best_step", "best_f1": "validation_f1", "best_threshold": "threshold"}
            keys |= {name: f"validation_{name}" for name in ("average_precision", "v_rand", "v_info")}
            record |= {key: round(self.best[name], 4) for name, key in keys.items() if name in self.best}
        return card.model_copy(update={"training": {**card.training, **record}})

    def checkpoint(self, learner: Checkpoint, settings: TrainingSettings, context: DistributedContext) -> Checkpoint:
        """Add this state and the settings to the learner's checkpoint."""
        metadata = {
            "state": asdict(self),
            "settings": redacted(settings.model_dump(mode="json")),
            "world_size": context.world_size,
        }
        return Checkpoint(learner.tensors, {**learner.metadata, **metadata})


def load_state(checkpoint: Checkpoint | None, settings: TrainingSettings, context: DistributedContext) -> TrainingState:
    """Take the state from a checkpoint, or start a new one.

    Raises:
        ResumeError: the settings or the world size changed.
    """
    if checkpoint is None:
        return TrainingState()
    world_size = checkpoint.metadata["world_size"]
    if world_size != context.world_size:
        raise ResumeError(
            f"this training was started with {world_size} processes, not {context.world_size}; resume it with "
            f"--nproc-per-node {world_size}"
        )
    saved_settings, new_settings = checkpoint.metadata["settings"], redacted(settings.model_dump(mode="json"))
    for table, new in new_settings.items():
        new_tables, saved_tables = (
            value if isinstance(value, list) else [value] for value in (new, saved_settings.get(table))
        )
        if len(new_tables) != len(saved_tables):
            raise ResumeError(
                f"this training was started with {len(saved_tables)} [{table}] tables, not {len(new_tables)}; resume "
                "it with the run file of its start"
            )
        for new_table, saved_table in zip(new_tables, saved_tables, strict=True):
            _refuse_changes(table, saved_table or {}, new_table)
    return TrainingState(**checkpoint.metadata["state"])


def _refuse_changes(table: str, saved: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if key not in _MAY_CHANGE.get(table, ()) and saved.get(key) != value:
            raise ResumeError(
                f"this training was started with {table}.{key} {saved.get(key)!r}, not {value!r}; resume it with the "
                "run file of its start, or use a new output.folder"
            )
