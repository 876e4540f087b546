"""Components of a training, built and checked before the first step."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from volseg.errors import ConfigError, TrainingError
from volseg.inference.hardware import choose_precision, worker_info
from volseg.inference.predictor import disable_tf32
from volseg.inference.settings import Engine
from volseg.malloc import retain_heap
from volseg.models.interop.initial_weights import InitialWeights, load_initial_weights
from volseg.models.model import Model, build_card
from volseg.models.registry import build_network
from volseg.training.data.patches import PatchDataset, patch_shapes
from volseg.training.data.statistics import training_statistics
from volseg.training.data.targets import refuse_long_offsets, target_classes
from volseg.training.data.weight_maps import weight_maps
from volseg.training.learner import Learner
from volseg.training.state import TrainingState, load_state
from volseg.training.validation import Validator

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from volseg.models.card import ModelCard
    from volseg.ops import Normalization
    from volseg.training.data.weight_maps import WeightMaps
    from volseg.training.job import TrainerCallback, TrainingJob


@dataclass(frozen=True)
class TrainingComponents:
    """Everything that the trainer works with."""

    card: ModelCard
    learner: Learner
    state: TrainingState
    dataset: PatchDataset
    validator: Validator


def _section_hook(job: TrainingJob, callback: TrainerCallback, task: str) -> Callable[[int, int], None]:
    """Make a function to call after each section of the work before the first step.

    Raises:
        TrainingError: from the function, if the training is to stop.
    """

    def on_section(done: int, total: int) -> None:
        if job.should_stop():
            raise TrainingError(f"stopped before the first step, at {task} of section {done} of {total}")
        if job.distributed.is_rank_zero:
            callback.on_setup_progress(task, done, total)

    return on_section


def build_components(job: TrainingJob, callback: TrainerCallback) -> TrainingComponents:
    """Build and check the components of a training.

    Raises:
        VolsegError: settings, data or network do not fit.
    """
    settings, context = job.settings, job.distributed
    state = load_state(job.checkpoint, settings, context)
    network, initial_weights = _build_network(job)
    mode = settings.network.normalization
    statistics = training_statistics(job.volumes, mode, _section_hook(job, callback, "grey values"))
    card = _build_card(job, network, statistics.normalization)
    if initial_weights is not None:
        state.start = asdict(initial_weights)
    worker = worker_info(settings.fit.device)
    precision = choose_precision(settings.fit.precision, [worker])
    if worker.device == "cpu":
        retain_heap()
    elif precision == "float32":
        disable_tf32()
    input_shape, output_shape = patch_shapes(card.footprint, settings.patches.size)
    if settings.target.kind == "affinities":
        refuse_long_offsets(settings.target.offsets, input_shape, "patches.size")
    dataset = PatchDataset(
        tuple(job.volumes), statistics, input_shape, output_shape, settings.fit.seed, _weight_maps(job, callback)
    )
    learner = Learner(network, card, settings, precision, context)
    if job.checkpoint is not None:
        learner.load_checkpoint(job.checkpoint)
    engine = Engine(worker.device, precision, 1, torch.get_num_threads(), settings.validation.orientations)
    sections = [sections for volume in job.volumes for sections in volume.read_validation()]
    validator = Validator(sections, settings, engine)
    validator.check(Model(network, card, ""))
    if initial_weights is not None and context.is_rank_zero:
        callback.on_initial_weights(initial_weights)
    return TrainingComponents(card, learner, state, dataset, validator)


def _weight_maps(job: TrainingJob, callback: TrainerCallback) -> tuple[WeightMaps, ...]:
    loss = job.settings.loss
    if not loss.weight_map:
        return ()
    on_section = _section_hook(job, callback, "weight maps")
    return tuple(weight_maps(volume, loss.weight_map_w0, loss.weight_map_sigma, on_section) for volume in job.volumes)


def _arguments(job: TrainingJob) -> dict[str, Any]:
    """Arguments of the network's class; affinities set the number of channels."""
    target = job.settings.target
    channels = {"out_channels": len(target.offsets)} if target.kind == "affinities" else {}
    return {**channels, **job.settings.network.arguments}


def _build_network(job: TrainingJob) -> tuple[nn.Module, InitialWeights | None]:
    """Build the network with its initial weights, and say where these come from; None if they are random."""
    settings, arguments = job.settings.network, _arguments(job)
    network = build_network(settings.name, arguments)
    if settings.start is None or job.checkpoint is not None:
        return network, None
    return network, load_initial_weights(network, settings.start, settings.name, arguments)


def _build_card(job: TrainingJob, network: nn.Module, normalization: Normalization) -> ModelCard:
    settings, target, arguments = job.settings.network, job.settings.target, _arguments(job)
    affinities = target.kind == "affinities"
    card = build_card(
        network,
        kind=settings.name,
        arguments=arguments,
        normalization=normalization,
        voxel_nm=job.volumes[0].voxel_nm,
        classes=target_classes(target) if affinities else None,
        activation="sigmoid" if affinities else None,
        **job.card_fields,
    )
    if affinities and card.footprint.dimensions == 2 and any(z for z, _, _ in target.offsets):
        raise ConfigError(
            f"target.offsets {list(target.offsets)} relate sections, but {settings.name} {arguments} predicts one at a "
            "time; use a 3-D kernel, or offsets along y and x only"
        )
    return card
