"""A network in training, with its optimizer, EMA and loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from numpy.random import SeedSequence
from torch.nn.utils import clip_grad_norm_

from volseg.errors import ConfigError, TrainingError
from volseg.inference.optimize.optimize import DTYPES
from volseg.training.augmentation import make_augmentation
from volseg.training.checkpoint import Checkpoint
from volseg.training.data.targets import make_targets
from volseg.training.ema import EMA
from volseg.training.losses import make_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn
    from torch.amp import GradScaler
    from torch.optim import Optimizer

    from volseg.blocks import Zyx
    from volseg.config.train_tables import OptimizerSettings, TrainingSettings
    from volseg.inference.settings import Precision
    from volseg.models.card import ModelCard
    from volseg.training.data.sample import Sample
    from volseg.training.distributed import DistributedContext


class Learner:
    """Trains a network step by step.

    Attributes:
        network: in training, float32, on the device.
        ema: its averaged weights.
        step: number of steps taken.
    """

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        settings: TrainingSettings,
        precision: Precision,
        context: DistributedContext,
    ) -> None:
        """Move a network to the device and create its optimizer, EMA, augmentation and loss.

        Args:
            network: with its initial weights.
            card: of the network.
            settings: of the run file.
            precision: of the forward pass; weights and EMA stay float32.
            context: rank, world size and device.
        """
        self.step = 0
        self._is_2d = card.footprint.dimensions == 2
        self._memory_format = torch.channels_last if self._is_2d else torch.channels_last_3d
        self.network = network.to(context.device).to(memory_format=self._memory_format)  # type: ignore[call-overload]  # torch's stub lacks it
        self.ema = EMA(self.network, settings.optimizer.ema_decay)
        if settings.fit.compile:
            self.network.compile()
        self._wrapped_network = context.wrap(self.network)
        self._optimizer = make_optimizer(self.network, settings.optimizer)
        self._device_type = context.device.partition(":")[0]
        self._scaler = torch.amp.GradScaler(self._device_type) if precision == "float16" else None
        self._augment = make_augmentation(settings.augmentation, flip_z=not self._is_2d)
        self._loss = make_loss(settings.loss, card.activation, card.classes)
        self._card, self._settings, self._precision, self._context = card, settings, precision, context

    def train_step(self, samples: Sequence[Sample], output_shape: Zyx, learning_rate: float) -> float:
        """Take one optimizer step; returns the mean loss over the batches and all processes.

        Args:
            samples: one batch for each forward pass; their gradients are averaged.
            output_shape: of a patch, voxels along (z, y, x); centred in the input.
            learning_rate: of this step.

        Raises:
            ConfigError: the output does not fit the target, or is too small for batch normalisation.
            TrainingError: the loss or its gradient is NaN or infinite; the EMA is not updated.
        """
        self.step += 1
        self._seed_dropout()
        total = torch.zeros((), device=self._context.device)
        for number, sample in enumerate(samples, 1):
            with self._context.no_sync(self._wrapped_network, last=number == len(samples)):
                loss = self._compute_loss(self._augment(sample), output_shape) / len(samples)
                (loss if self._scaler is None else self._scaler.scale(loss)).backward()
            total += loss.detach()
        norm = optimizer_step(self._optimizer, learning_rate, self._settings.optimizer.clip or None, self._scaler)
        value = self._context.mean(total)  # the first synchronisation with the device in this step
        if not math.isfinite(value):
            raise self._not_finite(f"the loss is {value}")
        if self._scaler is None and not torch.isfinite(norm):
            raise self._not_finite(f"the gradient norm is {norm.item()}")
        self.ema.update(self.network)
        return value

    def _seed_dropout(self) -> None:
        """Seed torch from the seed, the step and the rank, so that checkpoints need no generator state."""
        entropy = (self._settings.fit.seed, self.step, self._context.rank)
        torch.manual_seed(int(SeedSequence(entropy).generate_state(1)[0]))

    def _compute_loss(self, sample: Sample, output_shape: Zyx) -> Tensor:
        with torch.autocast(self._device_type, DTYPES[self._precision], enabled=self._precision != "float32"):
            output = self._forward(sample.raw if self._is_2d else sample.raw[:, None])
        targets, mask = make_targets(sample.labels, self._settings.target, self._card.classes, self._card.activation)
        weights = mask if sample.weights is None else mask * sample.weights[:, None]
        targets, weights = center_crop(targets, output_shape), center_crop(weights, output_shape)
        if self._is_2d:
            targets, weights = targets[:, :, 0], weights[:, :, 0]
        if output.shape != targets.shape:
            raise ConfigError(
                f"network {self._card.network} has the output {tuple(output.shape)}, but the target is "
                f"{tuple(targets.shape)}; use other network.arguments or patches.size"
            )
        return self._loss(output.float(), targets, weights)

    def _forward(self, inputs: Tensor) -> Tensor:
        try:
            output: Tensor = self._wrapped_network(inputs.contiguous(memory_format=self._memory_format))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ConfigError(
                f"a patch of {tuple(inputs.shape[2:])} leaves one value per channel in the deepest layer, too few for "
                "batch normalisation; raise patches.batch or patches.size"
            ) from error
        return output

    def _not_finite(self, problem: str) -> TrainingError:
        return TrainingError(
            f"{problem} at step {self.step}; lower optimizer.learning_rate, set optimizer.clip, or use fit.precision "
            "float32; the best model and the last checkpoint are intact"
        )

    def checkpoint(self) -> Checkpoint:
        """Weights, EMA, optimizer state and step."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.state_dict().items()}
        for number, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
        return Checkpoint(tensors, {"step": self.step, "scaler": self._scaler and self._scaler.state_dict()})

    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Restore a checkpoint of the same training."""
        self.step = int(checkpoint.metadata["step"])
        self.network.load_state_dict(_with_prefix("network", checkpoint.tensors))
        self.ema.load_state_dict(_with_prefix("ema", checkpoint.tensors))
        moments: dict[int, dict[str, Any]] = {}
        weights = [weight for group in self._optimizer.param_groups for weight in group["params"]]
        for key, tensor in _with_prefix("optimizer", checkpoint.tensors).items():
            number, _, name = key.partition(".")
            moments.setdefault(int(number), {})[name] = _in_memory_format_of(weights[int(number)], tensor)
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if self._scaler is not None:
            self._scaler.load_state_dict(checkpoint.metadata["scaler"])


def _in_memory_format_of(weight: Tensor, moment: Tensor) -> Tensor:
    """Copy a moment into the memory format of its weight; otherwise an optimizer step takes half as long again."""
    return torch.empty_like(weight, dtype=moment.dtype).copy_(moment) if moment.shape == weight.shape else moment


def center_crop(tensor: Tensor, shape: Zyx) -> Tensor:
    """Crop (..., z, y, x) to a shape, centred."""
    for axis, length in zip((-3, -2, -1), shape, strict=True):
        tensor = tensor.narrow(axis, (tensor.shape[axis] - length) // 2, length)
    return tensor


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Select the tensors whose names have a prefix, and remove it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def make_optimizer(network: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """Create the optimizer of a network's trainable weights.

    Weight decay applies to kernels, not to vectors (biases, scales and shifts of normalisation). For `adamw` it is
    decoupled from the gradient (Loshchilov and Hutter 2019), for `adam` and `sgd` added to it.

    Args:
        network: on its device.
        settings: the `[optimizer]` table; `optimizer_step` sets the learning rate of each step.
    """
    trainable = [weights for weights in network.parameters() if weights.requires_grad]
    groups = [
        {"params": [weights for weights in trainable if weights.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [weights for weights in trainable if weights.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)
    optimizer = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return optimizer(groups, lr=settings.learning_rate, betas=settings.betas)


def optimizer_step(
    optimizer: Optimizer, learning_rate: float, max_norm: float | None, scaler: GradScaler | None = None
) -> Tensor:
    """Clip the gradients, take one step, and clear them.

    Args:
        optimizer: whose weights have gradients.
        learning_rate: of this step.
        max_norm: of all gradients together; None for no clipping.
        scaler: for float16; it skips the step if a gradient is NaN or infinite.

    Returns:
        The norm before clipping, a scalar on the device, so that nothing synchronises. Without a scaler, a norm that
        is not finite has corrupted the weights: check it before they are saved.
    """
    if scaler is not None:
        scaler.unscale_(optimizer)
    weights = [weights for group in optimizer.param_groups for weights in group["params"]]
    norm = clip_grad_norm_(weights, math.inf if max_norm is None else max_norm)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return norm
