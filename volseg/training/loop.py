"""The training loop, from fresh weights to the best ones."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

from volseg.blocks import Box, ceil_to
from volseg.errors import ConfigError, TrainingError
from volseg.evaluation import PixelCounts, PixelScores, pixel_scores
from volseg.inference.engine import Engine
from volseg.inference.facts import choose_precision, worker_facts
from volseg.inference.memory import Load, largest_that_fits, plan_memory
from volseg.inference.prepare import DTYPES, prepared
from volseg.inference.tiled import TiledPredictor
from volseg.models.model import Model, card_for
from volseg.models.registry import build_network
from volseg.ops import Normalization, mirrored, moments, normalize, to_uint8
from volseg.pipeline import Request, plan_run
from volseg.training.data import LabelledVolume, PatchSampler

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from volseg.inference.facts import Precision, WorkerFacts
    from volseg.models.card import ModelCard
    from volseg.training.settings import FitSettings, NetworkSettings

_WARM_UP = 0.05
"""Share of the training in which the learning rate rises to its full value."""


class Watcher(Protocol):
    """Anything that wants to see a training go on."""

    def step(self, step: int, loss: float, learning_rate: float, share: float) -> None:
        """A step is done; `share` of the training is over."""

    def validated(self, step: int, scores: PixelScores, probability: NDArray[np.float32], *, best: bool) -> None:
        """The validation sections were scored: their probability is (z, y, x); `best` so far or not."""


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes:
        network: with the best weights, in eval mode.
        card: for its model file.
        best: scores of the selected step on the validation sections; None without such sections.
        losses: of every step.
        seconds: taken.
    """

    network: nn.Module
    card: ModelCard
    best: PixelScores | None
    losses: list[float]
    seconds: float


def fit(
    train: LabelledVolume,
    validation: LabelledVolume | None,
    choice: NetworkSettings,
    settings: FitSettings,
    watcher: Watcher,
    about: dict[str, Any],
) -> Trained:
    """Train a network.

    AdamW on the cross entropy of every pixel of random patches; the learning rate rises linearly over the first 5 %
    and falls along a cosine. The step whose validation F1 (at its best threshold) is highest is kept.

    Args:
        train: what to learn from.
        validation: what to select the step on; without it the last step is kept.
        choice: the network.
        settings: how long and how fast.
        watcher: told of each step and validation.
        about: fields for the model's card: name, license, and `training`, to which steps and scores are added.

    Raises:
        TrainingError: a loss that is no number.
        VolsegError: settings that the network cannot take.
    """
    torch.manual_seed(settings.seed)
    facts = worker_facts(settings.device)
    precision = choose_precision(settings.precision, [facts])
    network = build_network(choice.name, choice.arguments)
    normalization = Normalization(choice.normalization, moments(train.raw), train.raw.dtype.name)
    card = card_for(
        network,
        kind=choice.name,
        arguments=choice.arguments,
        normalization=normalization,
        voxel_nm=train.voxel_nm,
        **about,
    )
    sampler = PatchSampler(train, normalization, card.footprint, settings.patch_zyx, settings.seed)
    _place(network, card.footprint.dimensions, facts.device)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=settings.weight_decay)
    selection = _Selection()
    losses: list[float] = []
    started = time.monotonic()

    while (share := _share(len(losses), time.monotonic() - started, settings)) < 1:
        rate = settings.learning_rate * _schedule(share)
        inputs, targets = (torch.from_numpy(array).to(facts.device) for array in sampler.batch(settings.batch))
        network.train()
        with torch.autocast(facts.device, DTYPES[precision], enabled=precision != "float32"):
            output = _output(network, inputs)
        loss = cross_entropy(output.float(), targets, card.membrane_channel)
        losses.append(_learn(optimizer, loss, rate, len(losses) + 1))
        watcher.step(len(losses), losses[-1], rate, share)

        last = _share(len(losses), time.monotonic() - started, settings) >= 1
        if validation is not None and (last or len(losses) % settings.validate_every == 0):
            probability = predict_sections(Model(network, card, ""), validation.raw, precision, facts)
            scores = _scored(probability, validation)
            watcher.validated(len(losses), scores, probability, best=selection.offer(scores, network))

    network.load_state_dict(selection.state or network.state_dict())
    seconds = time.monotonic() - started
    card = _with_results(card, losses, seconds, selection.scores)
    return Trained(network.eval(), card, selection.scores, losses, seconds)


class _Selection:
    """Keeps the weights whose validation scores were the best."""

    def __init__(self) -> None:
        self.scores: PixelScores | None = None
        self.state: dict[str, Tensor] | None = None

    def offer(self, scores: PixelScores, network: nn.Module) -> bool:
        """Keep these weights if they beat all before; says whether they did."""
        if self.scores is not None and scores.best_f1 <= self.scores.best_f1:
            return False
        self.scores, self.state = scores, copy.deepcopy(network.state_dict())
        return True


def _place(network: nn.Module, dimensions: int, device: str) -> None:
    """Put the weights on a device, channels last."""
    layout = torch.channels_last if dimensions == 2 else torch.channels_last_3d
    network.to(device).to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub lacks it


def _output(network: nn.Module, inputs: Tensor) -> Tensor:
    """What the network makes of a batch.

    Raises:
        TrainingError: a batch norm has one value a channel, of which there is no variance.
    """
    layout = torch.channels_last if inputs.ndim == 4 else torch.channels_last_3d
    try:
        made: Tensor = network(inputs.contiguous(memory_format=layout))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise TrainingError(
            f"a patch of {tuple(inputs.shape[2:])} leaves one value a channel in the network's deepest layer, which "
            "batch normalisation cannot scale; raise fit.batch or fit.patch"
        ) from error
    return made


def _learn(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, step: int) -> float:
    """Take one step down the loss; returns it.

    Raises:
        TrainingError: it is no number; the weights are left as they were.
    """
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingError(
            f"the loss is {value} at step {step}; lower fit.learning_rate, or use fit.precision float32"
        )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return value


def cross_entropy(output: Tensor, targets: Tensor, membrane_channel: int) -> Tensor:
    """Cross entropy of every pixel, averaged: of a sigmoid for one output channel, else of a soft-max.

    Args:
        output: (N, classes, y, x) or (N, classes, z, y, x), before activation.
        targets: alike with one channel, 1 on membrane.
        membrane_channel: which of two classes is membrane.
    """
    if output.shape[2:] != targets.shape[2:]:
        raise ConfigError(f"output {tuple(output.shape)} and targets {tuple(targets.shape)} differ in size")
    if output.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(output, targets)
    classes = (targets[:, 0] > 0.5).long()
    return F.cross_entropy(output, classes if membrane_channel == 1 else 1 - classes)


def predict_sections(model: Model, raw: NDArray[Any], precision: Precision, facts: WorkerFacts) -> NDArray[np.float32]:
    """Membrane probability of a small volume in memory, with the exact halo; (z, y, x) in [0, 1].

    Raises:
        MemoryPlanError: not even the smallest tile fits.
    """
    footprint = model.card.footprint
    whole = Box.of_shape((raw.shape[0], raw.shape[1], raw.shape[2]))
    z, y, x = (ceil_to(n, s) for n, s in zip(whole.shape, footprint.stride, strict=True))
    plan = plan_run(whole.shape, whole.shape, (footprint,), Request(block=(z, y, x)))
    load = Load(batch=1, precision=precision, source_item=raw.itemsize, slots=1, device=facts.device)
    plans = ((tiling, plan_memory(model.network, plan.grid, tiling, load)) for tiling in plan.tilings())
    tiling, _ = largest_that_fits(plans, facts.memory, facts.device_memory)
    read_box = tiling.read_box(whole)
    normalized = normalize(
        mirrored(raw, read_box.start, read_box.stop), model.card.normalization.statistics_of(raw), read_box.start[0]
    )
    engine = Engine(facts.device, precision, batch=1, threads=torch.get_num_threads())
    ready = prepared(model.network, facts.device, precision)
    (probability,) = TiledPredictor(ready, model.activate, tiling, engine)(normalized, whole)
    membrane: NDArray[np.float32] = probability[0]
    return membrane


def _share(steps: int, seconds: float, settings: FitSettings) -> float:
    """How much of the training is over, by steps or by time, whichever ends first."""
    timed = 0.0 if settings.minutes is None else seconds / (60 * settings.minutes)
    return max(steps / settings.steps, timed)


def _schedule(share: float) -> float:
    """The learning rate as a share of its full value: a linear rise, then half a cosine."""
    if share < _WARM_UP:
        return (share + 0.1 * _WARM_UP) / (1.1 * _WARM_UP)
    return 0.5 * (1 + math.cos(math.pi * (share - _WARM_UP) / (1 - _WARM_UP)))


def _scored(probability: NDArray[np.float32], truth: LabelledVolume) -> PixelScores:
    counts = PixelCounts()
    counts.add(to_uint8(probability), truth.membrane)
    return pixel_scores(counts)


def _with_results(card: ModelCard, losses: list[float], seconds: float, best: PixelScores | None) -> ModelCard:
    results: dict[str, Any] = {"steps": len(losses), "seconds": round(seconds, 1)}
    if best is not None:
        results |= {"validation_f1": round(best.best_f1, 4), "threshold": round(best.best_threshold, 3)}
    return card.model_copy(update={"training": {**card.training, **results}})
