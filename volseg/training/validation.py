"""Validation: scores of a network on sections that it is not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from volseg.blocks import Box, ceil_to
from volseg.errors import MemoryPlanError, NotFiniteError, TrainingError
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
from volseg.training.data.targets import make_targets, refuse_long_offsets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volseg.blocks import Tiling
    from volseg.config.train_tables import Score, TrainingSettings
    from volseg.inference.hardware import WorkerInfo
    from volseg.inference.settings import Engine
    from volseg.models.model import Model
    from volseg.training.data.volumes import ValidationSections


@dataclass(frozen=True)
class ValidationResult:
    """Scores of one validation.

    Attributes:
        step: of the training.
        pixels: pixel scores over all validation sections.
        segmentation: V_rand and V_info; None unless they select the best step.
        value: the score that selects the best step; higher is better.
        best: whether it is the highest so far.
        images: captions and images (y, x) of some sections: raw, truth, probability.
    """

    step: int
    pixels: PixelScores
    segmentation: SegmentationScores | None
    value: float
    best: bool
    images: list[tuple[str, NDArray[Any]]]

    def scores(self) -> dict[str, float]:
        """The main scores by name."""
        scores = {"f1": self.pixels.best_f1, "average_precision": self.pixels.average_precision}
        if self.segmentation is not None:
            scores |= {"v_rand": self.segmentation.best_v_rand, "v_info": self.segmentation.best_v_info}
        return scores


class Validator:
    """Scores a network on the validation sections."""

    def __init__(self, sections: Sequence[ValidationSections], settings: TrainingSettings, engine: Engine) -> None:
        """Set what is scored and how.

        Args:
            sections: one entry for each range; may be empty.
            settings: of the run file.
            engine: how the network is run; its orientations are averaged.
        """
        self._sections = sections
        self._settings = settings
        self._engine = engine

    def __bool__(self) -> bool:
        """Whether there are validation sections."""
        return bool(self._sections)

    def check(self, model: Model) -> None:
        """Check before the first step that the validation sections can be scored.

        Raises:
            TrainingError: they do not fit in memory.
            ConfigError: an affinity offset is as long as a range of sections.
        """
        for sections in self._sections:
            try:
                _tiling(model, sections.raw, self._engine, worker_info(self._engine.device))
            except MemoryPlanError as error:
                raise TrainingError(
                    f"validation on sections of {sections.raw.shape} does not fit in memory ({error}); use fewer "
                    "sections for data.validation, or none"
                ) from error
            if self._settings.target.kind == "affinities":
                refuse_long_offsets(self._settings.target.offsets, sections.raw.shape, "data.validation")

    def validate(self, model: Model, step: int, best_value: float | None) -> ValidationResult:
        """Score a model on all validation sections, each voxel once.

        Args:
            model: with the weights to score.
            step: of the training.
            best_value: highest selecting score so far; None before the first validation.

        Raises:
            TrainingError: probabilities are NaN or infinite.
            MemoryPlanError: not even the smallest tile fits.
        """
        if self._engine.device == "cuda":
            torch.cuda.empty_cache()  # memory cached by training counts as used in the memory plan
        worker = worker_info(self._engine.device)
        pixel_counts, segmentation_counts = PixelCounts(), SegmentationCounts()
        score_segmentation = self._settings.validation.score in ("v_rand", "v_info")
        images: list[tuple[str, NDArray[Any]]] = []
        for sections in self._sections:
            try:
                probability = predict_sections(model, sections.raw, self._engine, worker)
            except NotFiniteError as error:
                raise TrainingError(
                    f"the network's probabilities are NaN or infinite at step {step}; lower optimizer.learning_rate, "
                    "or use fit.precision float32; the previous best model is intact"
                ) from error
            boundary, truth, ignored = self._boundaries(model, probability, sections)
            pixel_counts.add(to_uint8(boundary), truth, ignored)
            if score_segmentation:
                segmentation_counts.add(to_uint8(boundary[0]), sections.cell_ids)
            images = images or _images(sections.raw, truth[0], boundary.mean(axis=0))
        pixels = pixel_scores(pixel_counts)
        segmentation = segmentation_counts.scores() if score_segmentation else None
        value = _select_score(self._settings.validation.score, pixels, segmentation)
        best = best_value is None or value > best_value
        return ValidationResult(step, pixels, segmentation, value, best, images)

    def _boundaries(
        self, model: Model, probability: NDArray[np.float32], sections: ValidationSections
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """Boundary probability, true boundaries and ignored voxels: (channels, z, y, x) each."""
        labels = sections.labels
        if self._settings.target.kind == "membrane":
            channel = model.card.membrane_channel
            return probability[channel : channel + 1], (labels == 1)[None], (labels == IGNORED)[None]
        target = self._settings.target
        same_cell, mask = make_targets(
            torch.from_numpy(labels)[None], target, model.card.classes, model.card.activation
        )
        ignored = np.broadcast_to(mask[0].numpy() == 0, probability.shape)
        return 1 - probability, same_cell[0].numpy() < 0.5, ignored


def _images(
    raw: NDArray[Any], truth: NDArray[np.bool_], probability: NDArray[np.float32]
) -> list[tuple[str, NDArray[Any]]]:
    """Two sections of a range (z, y, x), one below the other."""
    indices = sorted({len(raw) // 4, 3 * len(raw) // 4})
    volumes = {"raw": raw, "truth": truth, "probability": probability}
    return [(name, np.concatenate([volume[z] for z in indices])) for name, volume in volumes.items()]


def _select_score(score: Score, pixels: PixelScores, segmentation: SegmentationScores | None) -> float:
    if segmentation is not None:
        return segmentation.best_v_rand if score == "v_rand" else segmentation.best_v_info
    return pixels.best_f1 if score == "f1" else pixels.average_precision


def predict_sections(model: Model, raw: NDArray[Any], engine: Engine, worker: WorkerInfo) -> NDArray[np.float32]:
    """Predict a small volume in memory, with the exact halo; (classes, z, y, x) in [0, 1].

    Args:
        model: on any device.
        raw: grey values (z, y, x), normalised as a volume of their own.
        engine: how the network is run.
        worker: hardware of this process.

    Raises:
        NotFiniteError: the network's output is NaN or infinite.
        MemoryPlanError: not even the smallest tile fits.
    """
    box = Box.of_shape((raw.shape[0], raw.shape[1], raw.shape[2]))
    tiling = _tiling(model, raw, engine, worker)
    statistics = model.card.normalization.statistics_of(raw)
    read_box = tiling.read_box(box)
    grey = Grey.of(read_reflected(raw, read_box.start, read_box.stop), statistics, read_box.start[0])
    network = optimize(model.network, engine.device, engine.precision)
    mean = RunningMean()
    for estimate in TiledPredictor(network, model.probabilities, tiling, engine)(grey, box):
        mean.add(estimate.probability)
    return mean.mean()


def _tiling(model: Model, raw: NDArray[Any], engine: Engine, worker: WorkerInfo) -> Tiling:
    """The largest tiles that fit in memory."""
    footprint = model.card.footprint
    shape = (raw.shape[0], raw.shape[1], raw.shape[2])
    z, y, x = (ceil_to(n, s) for n, s in zip(shape, footprint.stride, strict=True))
    plan = plan_run(shape, shape, (footprint,), PlanRequest(block=(z, y, x)))
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
    tiling, _ = largest_that_fits(plans, min(worker.memory, worker.job_memory), worker.device_memory)
    return tiling
