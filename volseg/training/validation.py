"""Scores of a network on sections that it does not learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from volseg.blocks import Box, ceil_to
from volseg.errors import MemoryPlanError, TrainingError
from volseg.evaluation.metrics import PixelCounts, PixelScores, SegmentationCounts, SegmentationScores, pixel_scores
from volseg.inference.hardware import worker_info
from volseg.inference.memory.plan import largest_that_fits, plan_memory
from volseg.inference.optimize.optimize import optimize
from volseg.inference.orientations import ORIENTATIONS
from volseg.inference.settings import Load
from volseg.inference.tiled_predictor import TiledPredictor
from volseg.ops import Grey, RunningMean, read_reflected, to_uint8
from volseg.pipeline import PlanRequest, plan_run
from volseg.training.data.sample import IGNORED
from volseg.training.data.targets import refuse_far, targets_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volseg.blocks import Tiling
    from volseg.config.train_tables import Score, TrainingSettings
    from volseg.inference.hardware import WorkerInfo
    from volseg.inference.settings import Engine
    from volseg.models.model import Model
    from volseg.training.data.volumes import HeldOut


@dataclass(frozen=True)
class Validated:
    """What the validation of one step found.

    Attributes:
        step: which.
        pixels: pixel scores over all held-out sections.
        segmentation: V_rand and V_info; None where the settings do not select by them.
        value: the score that steps are compared by; higher is better.
        best: whether it is the highest so far.
        columns: captions and pictures (y, x) of some held-out sections: raw, truth, probability.
    """

    step: int
    pixels: PixelScores
    segmentation: SegmentationScores | None
    value: float
    best: bool
    columns: list[tuple[str, NDArray[Any]]]

    def figures(self) -> dict[str, float]:
        """The scores that tell steps apart, by name."""
        told = {"f1": self.pixels.best_f1, "average_precision": self.pixels.average_precision}
        if self.segmentation is not None:
            told |= {"v_rand": self.segmentation.best_v_rand, "v_info": self.segmentation.best_v_info}
        return told


class Validation:
    """The held-out sections, and how a network is scored on them."""

    def __init__(self, held_out: Sequence[HeldOut], settings: TrainingSettings, engine: Engine) -> None:
        """Say what is scored and how.

        Args:
            held_out: stretches of sections with their truth.
            settings: the run file's.
            engine: how the network is run; its orientations are averaged.
        """
        self._held_out = held_out
        self._settings = settings
        self._engine = engine

    def __bool__(self) -> bool:
        """Whether there is anything to score on."""
        return bool(self._held_out)

    def refuse_unfit(self, model: Model) -> None:
        """Find out before the first step whether the held-out sections can be scored.

        Raises:
            TrainingError: they do not fit in memory, or hold nothing that can be scored.
        """
        for held in self._held_out:
            try:
                _tiling(model, held.raw, self._engine, worker_info(self._engine.device))
            except MemoryPlanError as error:
                raise TrainingError(
                    f"validation on sections of {held.raw.shape} does not fit ({error}); hold out fewer by "
                    "data.validation, or train without"
                ) from error
            if self._settings.target.kind == "affinities":
                refuse_far(self._settings.target.offsets, held.raw.shape, "data.validation")

    def of(self, model: Model, step: int, best_before: float | None) -> Validated:
        """Score a model on all held-out sections, each voxel once.

        Raises:
            TrainingError: its probabilities are no numbers.
            MemoryPlanError: not even the smallest tile fits.
        """
        if self._engine.device == "cuda":
            torch.cuda.empty_cache()  # what the training's allocator keeps would look taken
        facts = worker_info(self._engine.device)
        pixels, sections = PixelCounts(), SegmentationCounts()
        segmented = self._settings.validation.score in ("v_rand", "v_info")
        columns: list[tuple[str, NDArray[Any]]] = []
        for held in self._held_out:
            made = predict_sections(model, held.raw, self._engine, facts)
            if not np.isfinite(made).all():
                raise TrainingError(
                    f"the network's probabilities are no numbers at step {step}; lower optimizer.learning_rate, or "
                    "use fit.precision float32; the best model before is kept"
                )
            boundary, truth, ignored = self._boundaries(model, made, held)
            pixels.add(to_uint8(boundary), truth, ignored)
            if segmented:
                sections.add(to_uint8(boundary[0]), held.truth_ids)
            columns = columns or _columns(held.raw, truth[0], boundary.mean(axis=0))
        scores, segmentation = pixel_scores(pixels), sections.scores() if segmented else None
        value = _value(self._settings.validation.score, scores, segmentation)
        best = best_before is None or value > best_before
        return Validated(step, scores, segmentation, value, best, columns)

    def _boundaries(
        self, model: Model, made: NDArray[np.float32], held: HeldOut
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """How sure the network is of a boundary, where there is one, and what is not scored: (channels, z, y, x)."""
        if self._settings.target.kind == "membrane":
            channel = model.card.membrane_channel
            return made[channel : channel + 1], (held.labels == 1)[None], (held.labels == IGNORED)[None]
        labels = torch.from_numpy(held.labels)[None]
        joined, counted = targets_of(labels, self._settings.target, model.card.classes, model.card.activation)
        return 1 - made, joined[0].numpy() < 0.5, (counted[0].numpy() == 0) | np.zeros(made.shape, bool)


def _columns(
    raw: NDArray[Any], truth: NDArray[np.bool_], probability: NDArray[np.float32]
) -> list[tuple[str, NDArray[Any]]]:
    """Two sections of a stretch (z, y, x), one below the other."""
    chosen = sorted({len(raw) // 4, 3 * len(raw) // 4})
    named = {"raw": raw, "truth": truth, "probability": probability}
    return [(name, np.concatenate([volume[z] for z in chosen])) for name, volume in named.items()]


def _value(score: Score, pixels: PixelScores, segmentation: SegmentationScores | None) -> float:
    if segmentation is not None:
        return segmentation.best_v_rand if score == "v_rand" else segmentation.best_v_info
    return pixels.best_f1 if score == "f1" else pixels.average_precision


def predict_sections(model: Model, raw: NDArray[Any], engine: Engine, facts: WorkerInfo) -> NDArray[np.float32]:
    """Probabilities of a small volume in memory, with the exact halo; (classes, z, y, x) in [0, 1].

    Args:
        model: whatever device its weights lie on.
        raw: grey values (z, y, x), normalised as if they were a volume by themselves.
        engine: how the network is run.
        facts: what this process computes on.

    Raises:
        MemoryPlanError: not even the smallest tile fits.
    """
    whole = Box.of_shape((raw.shape[0], raw.shape[1], raw.shape[2]))
    tiling = _tiling(model, raw, engine, facts)
    statistics = model.card.normalization.statistics_of(raw)
    read_box = tiling.read_box(whole)
    grey = Grey.of(read_reflected(raw, read_box.start, read_box.stop), statistics, read_box.start[0])
    optimized = optimize(model.network, engine.device, engine.precision)
    estimates = RunningMean()
    for probability, _ in TiledPredictor(optimized, model.probabilities, tiling, engine)(grey, whole):
        estimates.add(probability)
    return estimates.mean()


def _tiling(model: Model, raw: NDArray[Any], engine: Engine, facts: WorkerInfo) -> Tiling:
    """The largest tiles that fit."""
    footprint = model.card.footprint
    whole = Box.of_shape((raw.shape[0], raw.shape[1], raw.shape[2]))
    z, y, x = (ceil_to(n, s) for n, s in zip(whole.shape, footprint.stride, strict=True))
    plan = plan_run(whole.shape, whole.shape, (footprint,), PlanRequest(block=(z, y, x)))
    load = Load(
        batch=engine.batch,
        precision=engine.precision,
        source_item=raw.itemsize,
        slots=1,
        device=engine.device,
        classes=len(model.card.classes),
        estimates=len(ORIENTATIONS[engine.orientations]),
    )
    plans = ((tiling, plan_memory(model.network, plan.grid, tiling, load)) for tiling in plan.tilings())
    tiling, _ = largest_that_fits(plans, facts.memory, facts.device_memory)
    return tiling
