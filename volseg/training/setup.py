"""What a training is made of, put together and checked before the first step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from volseg.errors import ConfigError, TrainingError
from volseg.inference.hardware import choose_precision, worker_info
from volseg.inference.memory.malloc import retain_heap
from volseg.inference.predictor import disable_tf32
from volseg.inference.settings import Engine
from volseg.models import resolve_model
from volseg.models.model import Model, card_for, load_model_file
from volseg.models.registry import build_network
from volseg.training.data.patches import Patches, geometry
from volseg.training.data.statistics import training_statistics
from volseg.training.data.targets import classes_of, refuse_far
from volseg.training.data.weight_maps import weight_maps
from volseg.training.learner import Learner
from volseg.training.state import Course, resumed_course
from volseg.training.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from volseg.models.card import ModelCard
    from volseg.ops import Normalization
    from volseg.training.data.weight_maps import WeightMaps
    from volseg.training.job import Job, Watcher


@dataclass(frozen=True)
class Parts:
    """What a training is made of."""

    card: ModelCard
    learner: Learner
    course: Course
    patches: Patches
    validation: Validation


def _told_and_stopped(job: Job, watcher: Watcher) -> Callable[[str], Callable[[int, int], None]]:
    """Watches work that goes from section to section before the first step.

    Raises:
        TrainingError: from what is returned, once the training is to stop.
    """

    def named(what: str) -> Callable[[int, int], None]:
        def on_section(done: int, total: int) -> None:
            if job.stopping():
                raise TrainingError(f"stopped before the first step, at {what} of section {done} of {total}")
            if job.processes.first:
                watcher.preparing(what, done, total)

        return on_section

    return named


def prepare(job: Job, watcher: Watcher) -> Parts:
    """Put a training together.

    Raises:
        VolsegError: whatever can be refused before the first step.
    """
    settings, processes = job.settings, job.processes
    course = resumed_course(job.resumed, settings, processes)
    told = _told_and_stopped(job, watcher)
    statistics = training_statistics(job.volumes, settings.network.normalization, told("grey values"))
    network, card = _network(job, statistics.normalization)
    facts = worker_info(settings.fit.device)
    precision = choose_precision(settings.fit.precision, [facts])
    if facts.device == "cpu":
        retain_heap()
    elif precision == "float32":
        disable_tf32()
    engine = Engine(facts.device, precision, 1, torch.get_num_threads(), settings.validation.orientations)
    seen, scored = geometry(card.footprint, settings.patches.size)
    if settings.target.kind == "affinities":
        refuse_far(settings.target.offsets, seen, "patches.size")
    maps: list[WeightMaps] = []
    if settings.loss.weight_map:
        w0, sigma = settings.loss.weight_map_w0, settings.loss.weight_map_sigma
        maps = [weight_maps(volume, w0, sigma, told("weight maps")) for volume in job.volumes]
    patches = Patches(tuple(job.volumes), statistics, seen, scored, settings.fit.seed, tuple(maps))
    learner = Learner(network, card, settings, precision, processes)
    if job.resumed is not None:
        learner.load(job.resumed)
    validation = Validation([held for volume in job.volumes for held in volume.held_out()], settings, engine)
    validation.refuse_unfit(Model(network, card, ""))
    return Parts(card, learner, course, patches, validation)


def _network(job: Job, normalization: Normalization) -> tuple[nn.Module, ModelCard]:
    """The network with its first weights, and its card."""
    choice, target = job.settings.network, job.settings.target
    arguments = dict(choice.arguments)
    affinities = target.kind == "affinities"
    if affinities:
        arguments.setdefault("out_channels", len(target.offsets))
    network = build_network(choice.name, arguments)
    card = card_for(
        network,
        kind=choice.name,
        arguments=arguments,
        normalization=normalization,
        voxel_nm=job.volumes[0].voxel_nm,
        classes=classes_of(target) if affinities else None,
        activation="sigmoid" if affinities else None,
        **job.about,
    )
    if affinities and card.footprint.dimensions == 2 and any(z for z, _, _ in target.offsets):
        raise ConfigError(
            f"target.offsets {list(target.offsets)} lead to other sections, and {choice.name} {arguments} makes one at "
            "a time; give it a 3-D kernel, or offsets along y and x alone"
        )
    if choice.start is not None and job.resumed is None:
        begun = load_model_file(resolve_model(choice.start))
        # Arguments may be written otherwise and mean the same; the structure is what counts.
        if str(begun.network) != str(network):
            raise ConfigError(
                f"network.start {choice.start} is {begun.card.network} {begun.card.arguments}, not {choice.name} "
                f"{arguments}; make the two alike"
            )
        network.load_state_dict(begun.network.state_dict())
    return network, card
