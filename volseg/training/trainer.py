"""The training loop."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING

import torch

from volseg.errors import TrainingError, VolsegError
from volseg.models.model import Model
from volseg.training.data.loader import TimedIterator, load_batches, resolve_workers
from volseg.training.job import StepResult
from volseg.training.lr_schedule import learning_rate_factor
from volseg.training.setup import build_components
from volseg.training.state import TrainingClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from volseg.config.train_tables import TrainingSettings
    from volseg.evaluation.metrics import PixelScores
    from volseg.models.card import ModelCard
    from volseg.training.distributed import DistributedContext
    from volseg.training.job import TrainerCallback, TrainingJob
    from volseg.training.setup import TrainingComponents


@dataclass(frozen=True)
class TrainingResult:
    """Result of a training.

    Attributes:
        network: with the EMA weights of the last step, in eval mode.
        card: for its model file.
        best: validation scores of the best step; None without validation sections.
        steps: taken in total, including those before a resume.
        losses: of every step since the start or the resume.
        seconds: training time, without pauses before a resume.
        wait_fraction: fraction of it in which the device waited for patches.
        finished: False if the training was stopped before its end.
    """

    network: nn.Module
    card: ModelCard
    best: PixelScores | None
    steps: int
    losses: list[float]
    seconds: float
    wait_fraction: float
    finished: bool


def run_training(job: TrainingJob, callback: TrainerCallback) -> TrainingResult:
    """Train a network.

    Each step loads patches, augments them, and follows the gradient of their loss at the scheduled learning rate.
    Every `validation.every` steps the EMA weights are validated and saved. All random numbers follow from the seed and
    the indices of patches and steps, so that a resumed training draws the same ones.

    Raises:
        TrainingError: the loss is NaN or infinite.
        ResumeError: the checkpoint belongs to another training.
        VolsegError: settings that do not fit the network.
    """
    settings, context = job.settings, job.distributed
    patience = settings.validation.patience
    torch.manual_seed(settings.fit.seed)
    components = build_components(job, callback)
    learner, state, output_shape = components.learner, components.state, components.dataset.output_shape
    clock, previous_wait = TrainingClock(settings.fit, state.seconds), state.wait_seconds
    losses: list[float] = []
    stopped, startup_seconds = False, 0.0
    loader = load_batches(
        components.dataset,
        patch_indices(settings, context, learner.step),
        batch_size=settings.patches.batch,
        workers=resolve_workers(settings.patches.workers),
        device=context.device,
    )

    with _deterministic_algorithms(enabled=settings.fit.deterministic), closing(loader):
        batches = TimedIterator(loader)
        progress = context.broadcast(clock.progress(learner.step))
        while not (progress >= 1 or stopped or state.should_stop_early(patience)):
            learning_rate = settings.optimizer.learning_rate * learning_rate_factor(progress, settings.schedule)
            samples = list(islice(batches, settings.patches.accumulate))
            startup_seconds = startup_seconds or batches.seconds
            losses.append(learner.train_step(samples, output_shape, learning_rate))

            progress = context.broadcast(clock.progress(learner.step))
            state.seconds, state.wait_seconds = clock.seconds, previous_wait + batches.seconds - startup_seconds
            if context.is_rank_zero:
                step = (learner.step, losses[-1], learning_rate, progress, state.seconds, state.wait_seconds)
                callback.on_step(StepResult(*step))
            stopped = context.broadcast(job.should_stop()) > 0
            validate = progress >= 1 or learner.step % settings.validation.every == 0
            if validate or stopped:
                if context.is_rank_zero:
                    validate_and_save(components, job, callback, validate=validate)
                state.validations_since_best = int(context.broadcast(state.validations_since_best))

    return TrainingResult(
        learner.ema.network,
        state.update_card(components.card, learner.step),
        state.best_scores,
        learner.step,
        losses,
        state.seconds,
        state.wait_fraction,
        finished=progress >= 1 or state.should_stop_early(patience) or not stopped,
    )


@contextmanager
def _deterministic_algorithms(*, enabled: bool) -> Iterator[None]:
    """Use deterministic algorithms in a context.

    Raises:
        TrainingError: a layer has none on this device.
    """
    previous = torch.are_deterministic_algorithms_enabled()
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
    torch.use_deterministic_algorithms(enabled or previous)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise TrainingError(
            f"fit.deterministic is not supported by this network and device ({error}); remove it"
        ) from error
    finally:
        torch.use_deterministic_algorithms(previous)


def validate_and_save(
    components: TrainingComponents, job: TrainingJob, callback: TrainerCallback, *, validate: bool
) -> None:
    """Validate the EMA weights, and pass them with a checkpoint to the callback."""
    learner, state, validator = components.learner, components.state, components.validator
    best = validate and not validator  # without validation sections the last step counts as the best
    network = learner.ema.network

    def save(card: ModelCard, *, best: bool) -> None:
        checkpoint = state.checkpoint(learner.checkpoint(), job.settings, job.distributed)
        callback.on_save(Model(network, card, ""), checkpoint, best=best)

    if validate and validator:
        try:
            result = validator.validate(Model(network, components.card, ""), learner.step, state.best_value)
        except TrainingError:
            raise  # weights that are not finite are not saved
        except VolsegError:
            save(components.card, best=False)
            raise
        state.update(result)
        best = result.best
        callback.on_validation(result)
    save(state.update_card(components.card, learner.step), best=best)


def patch_indices(settings: TrainingSettings, context: DistributedContext, steps_done: int) -> Iterator[int]:
    """Yield the indices of the patches of this process, without end.

    A step takes batch x accumulate x world size patches; those of one forward pass are consecutive.
    """
    batch, accumulate = settings.patches.batch, settings.patches.accumulate
    for forward_pass in count(steps_done * accumulate):
        first = (forward_pass * context.world_size + context.rank) * batch
        yield from range(first, first + batch)
