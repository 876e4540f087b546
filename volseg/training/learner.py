"""A network while it learns, and all that changes with it."""

from __future__ import annotations

import math
from math import inf
from typing import TYPE_CHECKING, Any

import torch
from numpy.random import SeedSequence
from torch.nn.utils import clip_grad_norm_

from volseg.errors import ConfigError, TrainingError
from volseg.inference.optimize.optimize import DTYPES
from volseg.training.augmentation import make_augmentation
from volseg.training.checkpoint import Checkpoint
from volseg.training.data.targets import targets_of
from volseg.training.ema import Averaged
from volseg.training.losses import make_loss

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.amp import GradScaler
    from torch.optim import Optimizer

    from volseg.config.train_tables import OptimizerSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from volseg.blocks import Zyx
    from volseg.config.train_tables import TrainingSettings
    from volseg.inference.settings import Precision
    from volseg.models.card import ModelCard
    from volseg.training.data.sample import Sample
    from volseg.training.distributed import Processes

_OPTIMIZER = "optimizer"


class Learner:
    """A network, its averaged twin, and what drives them."""

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        settings: TrainingSettings,
        precision: Precision,
        processes: Processes,
    ) -> None:
        """Put a network on the device and make ready what it learns by.

        Args:
            network: with its first weights.
            card: what its outputs stand for.
            settings: the run file's.
            precision: of the forward pass; weights and averages stay float32.
            processes: those that learn together.
        """
        self.step = 0
        self._flat = card.footprint.dimensions == 2
        self._layout = torch.channels_last if self._flat else torch.channels_last_3d
        self.network = network.to(processes.device).to(memory_format=self._layout)  # type: ignore[call-overload]  # stub
        self.average = Averaged(self.network, settings.optimizer.average)
        if settings.fit.compile:
            self.network.compile()
        self._trained = processes.wrapped(self.network)
        self._optimizer = make_optimizer(self.network, settings.optimizer)
        self._kind = processes.device.partition(":")[0]
        self._scaler = torch.amp.GradScaler(self._kind) if precision == "float16" else None
        self._enrich = make_augmentation(settings.augmentation, flat=self._flat)
        self._loss = make_loss(settings.loss, card.activation, card.classes)
        self._card, self._settings, self._precision, self._processes = card, settings, precision, processes

    def learn(self, samples: Sequence[Sample], scored: Zyx, rate: float) -> float:
        """Take one step down the loss of some batches; returns their mean loss, over all processes.

        Args:
            samples: one batch for each forward pass of the step.
            scored: the middle of each patch that counts, voxels along (z, y, x).
            rate: the learning rate.

        Raises:
            TrainingError: the loss or its gradient is no number; the averaged weights are left as they were.
        """
        self.step += 1
        self._network_chance()
        total = torch.zeros((), device=self._processes.device)
        for number, sample in enumerate(samples, 1):
            with self._processes.no_sync(self._trained, last=number == len(samples)):
                loss = self._loss_of(self._enrich(sample), scored) / len(samples)
                (loss if self._scaler is None else self._scaler.scale(loss)).backward()
            total += loss.detach()
        norm = optimizer_step(self._optimizer, rate, self._settings.optimizer.clip or None, self._scaler)
        value = self._processes.mean(total)  # the first look at the device: until here nothing waits for it
        if not math.isfinite(value):
            raise self._no_number(f"the loss is {value}")
        if self._scaler is None and not torch.isfinite(norm):
            raise self._no_number(f"the gradient is {norm.item()}")
        self.average.update(self.network)
        return value

    def _network_chance(self) -> None:
        """What drop-out leaves out follows from the seed, the step and the process, so that nothing need be stored."""
        entropy = (self._settings.fit.seed, self.step, self._processes.rank)
        torch.manual_seed(int(SeedSequence(entropy).generate_state(1)[0]))

    def _loss_of(self, sample: Sample, scored: Zyx) -> Tensor:
        with torch.autocast(self._kind, DTYPES[self._precision], enabled=self._precision != "float32"):
            output = self._output(sample.raw if self._flat else sample.raw[:, None])
        targets, counted = targets_of(sample.labels, self._settings.target, self._card.classes, self._card.activation)
        weights = counted if sample.weights is None else counted * sample.weights[:, None]
        targets, weights = (middle(part, scored) for part in (targets, weights))
        if self._flat:
            targets, weights = targets[:, :, 0], weights[:, :, 0]
        if output.shape != targets.shape:
            raise ConfigError(
                f"network {self._card.network} makes {tuple(output.shape)} where {tuple(targets.shape)} is learned; "
                "use other network.arguments or patches.size"
            )
        return self._loss(output.float(), targets, weights)

    def _output(self, inputs: Tensor) -> Tensor:
        try:
            made: Tensor = self._trained(inputs.contiguous(memory_format=self._layout))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise TrainingError(
                f"a patch of {tuple(inputs.shape[2:])} leaves one value a channel in the network's deepest layer, "
                "which batch normalisation cannot scale; raise patches.batch or patches.size"
            ) from error
        return made

    def _no_number(self, what: str) -> TrainingError:
        return TrainingError(
            f"{what} at step {self.step}; lower optimizer.learning_rate, set optimizer.clip, or use fit.precision "
            "float32; the best model and the last checkpoint are kept"
        )

    def state(self) -> Checkpoint:
        """All that changes while it learns."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.state().items()}
        optimizer = self._optimizer.state_dict()
        for number, moments in optimizer["state"].items():
            tensors |= {f"{_OPTIMIZER}.{number}.{name}": value for name, value in moments.items()}
        return Checkpoint(tensors, {"step": self.step, "scaler": self._scaler and self._scaler.state_dict()})

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same training."""
        self.step = int(checkpoint.facts["step"])
        self.network.load_state_dict(_under("network", checkpoint.tensors))
        self.average.load(_under("average", checkpoint.tensors))
        moments: dict[int, dict[str, Any]] = {}
        weights = [each for group in self._optimizer.param_groups for each in group["params"]]
        for name, tensor in _under(_OPTIMIZER, checkpoint.tensors).items():
            number, _, kind = name.partition(".")
            moments.setdefault(int(number), {})[kind] = _laid_out(tensor, weights[int(number)])
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if self._scaler is not None:
            self._scaler.load_state_dict(checkpoint.facts["scaler"])


def _laid_out(moment: Tensor, weight: Tensor) -> Tensor:
    """A moment in the memory layout of its weight, else an optimiser takes half as long again."""
    return torch.empty_like(weight, dtype=moment.dtype).copy_(moment) if moment.shape == weight.shape else moment


def middle(whole: Tensor, scored: Zyx) -> Tensor:
    """The middle of (..., z, y, x), of the size that is scored."""
    inner = whole
    for axis, (held, kept) in zip((-3, -2, -1), zip(whole.shape[-3:], scored, strict=True), strict=True):
        inner = inner.narrow(axis, (held - kept) // 2, kept)
    return inner


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def make_optimizer(network: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """The optimiser of a network's learned weights.

    Kernels decay; biases and the scales and shifts of normalisations, which are vectors, do not. The decay of `adamw`
    stands beside the gradient (Loshchilov and Hutter 2019), that of `adam` and `sgd` is part of it.

    Args:
        network: on the device where it is trained.
        settings: kind and constants; the rate is the full one, until `optimizer_step` is given another.
    """
    learned = [weights for weights in network.parameters() if weights.requires_grad]
    groups = [
        {"params": [weights for weights in learned if weights.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [weights for weights in learned if weights.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.learning_rate, betas=settings.betas)


def optimizer_step(optimizer: Optimizer, rate: float, clip: float | None, scaler: GradScaler | None = None) -> Tensor:
    """Take one step along the gradients that are there, and forget them.

    Args:
        optimizer: whose weights have gradients.
        rate: learning rate of this step.
        clip: greatest norm of all gradients together; longer ones are shortened to it.
        scaler: of float16's gradients; it leaves the step out where they are no numbers.

    Returns:
        The gradients' norm before it was shortened, a scalar on their device, so that nothing waits for it. Without a
        scaler, a norm that is no number has spoilt the weights: look at it before they are kept.
    """
    if scaler is not None:
        scaler.unscale_(optimizer)
    weights = [weights for group in optimizer.param_groups for weights in group["params"]]
    norm = clip_grad_norm_(weights, inf if clip is None else clip)
    for group in optimizer.param_groups:
        group["lr"] = rate
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return norm
