"""The training loop, from fresh weights to the best ones."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING

import torch

from volseg.errors import TrainingError, VolsegError
from volseg.models.model import Model
from volseg.training.data.loader import Waiting, loader, workers_for
from volseg.training.job import Job, Step, Watcher
from volseg.training.lr_schedule import rate_at
from volseg.training.setup import prepare
from volseg.training.state import Clock

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from torch import nn

    from volseg.config.train_tables import TrainingSettings
    from volseg.evaluation.metrics import PixelScores
    from volseg.models.card import ModelCard
    from volseg.training.data.sample import Sample
    from volseg.training.distributed import Processes
    from volseg.training.setup import Parts


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes:
        network: the averaged weights of the last step, in eval mode.
        card: for its model file.
        best: scores of the best step on the held-out sections; None without such sections.
        steps: taken, those before a resume too.
        losses: of every step since it was begun or resumed.
        seconds: taken, pauses before a resume left out.
        waited: share of them in which the device waited for patches.
        finished: False where it was stopped before its end.
    """

    network: nn.Module
    card: ModelCard
    best: PixelScores | None
    steps: int
    losses: list[float]
    seconds: float
    waited: float
    finished: bool


def fit(job: Job, watcher: Watcher) -> Trained:
    """Train a network.

    Each step draws patches, varies them, and follows the gradient of their loss, at the rate that the schedule has for
    the share of the training that is over. Now and then the averaged weights are scored on sections held out, and kept.
    All chance follows from the seed and the numbers of patches and steps: a training that is resumed draws what it
    would have drawn.

    Raises:
        TrainingError: a loss that is no number.
        ResumeError: a checkpoint of another training.
        VolsegError: settings that the network cannot take.
    """
    settings, processes = job.settings, job.processes
    torch.manual_seed(settings.fit.seed)
    parts = prepare(job, watcher)
    learner, course = parts.learner, parts.course
    clock, waited_before = Clock(settings.fit, course.seconds), course.waited
    losses: list[float] = []
    stopped, start_up = False, 0.0

    with _deterministic(asked=settings.fit.deterministic), closing(_batches(parts, settings, processes)) as batches:
        samples = Waiting(batches)
        share = processes.broadcast(clock.share(learner.step))
        while not (share >= 1 or stopped or course.over(settings.validation.patience)):
            rate = settings.optimizer.learning_rate * rate_at(share, settings.schedule)
            drawn = list(islice(samples, settings.patches.accumulate))
            start_up = start_up or samples.seconds
            losses.append(learner.learn(drawn, parts.patches.scored, rate))

            share = processes.broadcast(clock.share(learner.step))
            course.seconds, course.waited = clock.seconds, waited_before + samples.seconds - start_up
            if processes.first:
                watcher.step(Step(learner.step, losses[-1], rate, share, course.seconds, course.waited))
            stopped = processes.broadcast(job.stopping()) > 0
            due = share >= 1 or learner.step % settings.validation.every == 0
            if due or stopped:
                if processes.first:
                    validate_and_save(parts, job, watcher, score=due)
                course.stale = int(processes.broadcast(course.stale))

    return Trained(
        learner.average.network,
        course.described(parts.card, learner.step),
        course.best_scores,
        learner.step,
        losses,
        course.seconds,
        course.waited / max(course.seconds, 1e-9),
        finished=share >= 1 or course.over(settings.validation.patience) or not stopped,
    )


@contextmanager
def _deterministic(*, asked: bool) -> Iterator[None]:
    """Algorithms that give the same bits each time, while a training lasts.

    Raises:
        TrainingError: a layer has none on this device.
    """
    before = torch.are_deterministic_algorithms_enabled()
    if asked:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS insists on it
    torch.use_deterministic_algorithms(asked or before)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise TrainingError(f"fit.deterministic cannot be had here ({error}); leave it out") from error
    finally:
        torch.use_deterministic_algorithms(before)


def validate_and_save(parts: Parts, job: Job, watcher: Watcher, *, score: bool) -> None:
    """Score the averaged weights, and hand out all that should outlive this process."""
    learner, course = parts.learner, parts.course
    best = score and not parts.validation
    model = Model(learner.average.network, parts.card, "")
    if score and parts.validation:
        try:
            done = parts.validation.of(model, learner.step, course.best_value)
        except TrainingError:
            raise  # weights that are no numbers are not worth keeping
        except VolsegError:
            watcher.keep(model, course.checkpoint(learner.state(), job.settings, job.processes), best=False)
            raise
        course.note(done)
        best = done.best
        watcher.validated(done)
    described = Model(model.network, course.described(parts.card, learner.step), "")
    watcher.keep(described, course.checkpoint(learner.state(), job.settings, job.processes), best=best)


def _batches(parts: Parts, settings: TrainingSettings, processes: Processes) -> Generator[Sample, None, None]:
    return loader(
        parts.patches,
        patch_numbers(settings, processes, parts.learner.step),
        batch=settings.patches.batch,
        workers=workers_for(settings.patches.workers),
        device=processes.device,
    )


def patch_numbers(settings: TrainingSettings, processes: Processes, steps_done: int) -> Iterator[int]:
    """The patches that this process learns from, for ever, as numbers in the whole training.

    A step takes batch x accumulate x processes patches; those of one forward pass lie side by side.
    """
    batch, passes = settings.patches.batch, settings.patches.accumulate
    for forward in count(steps_done * passes):
        first = (forward * processes.size + processes.rank) * batch
        yield from range(first, first + batch)
