"""Loss functions.

Tensors are (N, C, y, x) or (N, C, z, y, x). Outputs are logits: probabilities close to 0 or 1 would lose their
logarithms to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from volseg.errors import ConfigError
from volseg.registry import LOSSES

if TYPE_CHECKING:
    from volseg.config.train_tables import LossSettings

Activation: TypeAlias = Literal["sigmoid", "softmax"]

Loss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Scalar of output, targets and weights."""

_TINY = torch.finfo(torch.float32).tiny
_SMOOTH = 1e-5
"""Keeps a Dice coefficient defined if a class is neither present nor predicted; a fraction of the voxels."""


@dataclass(frozen=True, slots=True)
class LossOptions:
    """Settings of a loss, passed to losses that have a keyword parameter `options`.

    Attributes:
        activation: maps the output to probabilities.
        classes: names of the channels.
        membrane_weight: weight of a membrane voxel relative to others.
        gamma: exponent of the focal loss.
    """

    activation: Activation
    classes: tuple[str, ...]
    membrane_weight: float = 1.0
    gamma: float = 2.0


def make_loss(settings: LossSettings, activation: Activation, classes: tuple[str, ...] = ()) -> Loss:
    """Bind a loss of the registry to its settings.

    The loss is called with the output, float32 (N, C, ..); the targets, 0 or 1, of the same shape; and the weights, 0
    on ignored voxels, (N, 1, ..) or, with a sigmoid, (N, C, ..). It returns a scalar.

    Built-in losses are weighted means: a common factor of all weights does not matter, and a batch without counted
    voxels has loss 0 and no gradient. `membrane_weight` multiplies the weights of membrane in all but `dice`: where the
    channel called membrane is 1; without one (affinities), in each channel where it is 0.

    Args:
        settings: name and constants.
        activation: maps the output to probabilities.
        classes: names of the channels; by default membrane, or cell and membrane for a softmax.

    Raises:
        ConfigError: an unknown loss, or a setting that a plug-in does not take; from the loss: shapes that do not
            match, or a plug-in that returns no scalar.
    """
    name, function = settings.name, LOSSES[settings.name]
    classes = classes or (("membrane",) if activation == "sigmoid" else ("cell", "membrane"))
    options = LossOptions(activation, classes, settings.membrane_weight, settings.gamma)
    if "options" in signature(function).parameters:
        function = partial(function, options=options)
    elif options != LossOptions(activation, classes):
        raise ConfigError(f"loss {name!r} takes no options; remove loss.membrane_weight and loss.gamma")

    def loss(output: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        _check_shapes(output, targets, weights, activation)
        scalar = function(output, targets, weights)
        if not isinstance(scalar, Tensor) or scalar.ndim:
            shape = f"shape {tuple(scalar.shape)}" if isinstance(scalar, Tensor) else type(scalar).__name__
            raise ConfigError(f"loss {name!r} returns {shape}; return a scalar tensor")
        return scalar

    return loss


def cross_entropy(output: Tensor, targets: Tensor, weights: Tensor, *, options: LossOptions) -> Tensor:
    """Cross entropy, binary for each channel with a sigmoid, categorical with a softmax.

    With a weight map: U-Net's equations 1 and 2 (Ronneberger et al. 2015, arXiv 1505.04597), as a mean.
    """
    weights = _membrane_weighted(targets, weights, options)
    return _mean(_entropy(output, targets, options.activation), weights)


def balanced(output: Tensor, targets: Tensor, weights: Tensor, *, options: LossOptions) -> Tensor:
    """Cross entropy, each class weighted by the other's fraction of the batch's weight.

    After Xie and Tu 2015, arXiv 1504.06375; for each channel with a sigmoid. It is the mean of the means of the
    classes; a class that the batch lacks is left out.
    """
    weights = _membrane_weighted(targets, weights * _balance(targets, weights, options.activation), options)
    return _mean(_entropy(output, targets, options.activation), weights)


def focal(output: Tensor, targets: Tensor, weights: Tensor, *, options: LossOptions) -> Tensor:
    """Cross entropy times (1 - p)^gamma, p the probability of the true class (Lin et al. 2017, arXiv 1708.02002)."""
    true, false = _log_probabilities(output, targets, options.activation)
    weights = _membrane_weighted(targets, weights, options)
    return _mean(-(options.gamma * false).exp() * true, weights)


def mean_absolute(output: Tensor, targets: Tensor, weights: Tensor, *, options: LossOptions) -> Tensor:
    """Mean of |p - target| over all channels."""
    weights = _membrane_weighted(targets, weights, options)
    return _mean((_probability(output, options.activation) - targets).abs(), weights)


def dice(output: Tensor, targets: Tensor, weights: Tensor, *, options: LossOptions) -> Tensor:
    """1 - 2 sum(p t) / (sum(p^2) + sum(t^2)), sums over the batch; the mean over channels.

    Milletari et al. 2016, arXiv 1606.04797.
    """
    probability = _probability(output, options.activation)
    weights = weights.expand_as(targets)
    total = _sum(weights)
    fraction = weights / total.clamp(min=_TINY)
    overlap = _sum(fraction * probability * targets)
    squares = _sum(fraction * (probability**2 + targets**2))
    losses = 1 - (2 * overlap + _SMOOTH) / (squares + _SMOOTH)
    return losses.sum() / (total > 0).sum().clamp(min=1)


def _check_shapes(output: Tensor, targets: Tensor, weights: Tensor, activation: Activation) -> None:
    channels = output.shape[1]
    same_voxels = (weights.shape[0], weights.shape[2:]) == (output.shape[0], output.shape[2:])
    weight_channels = {1, channels} if activation == "sigmoid" else {1}
    if output.shape != targets.shape or not same_voxels or weights.shape[1] not in weight_channels:
        raise ConfigError(
            f"output {tuple(output.shape)}, targets {tuple(targets.shape)} and weights {tuple(weights.shape)} do not "
            f"fit together with a {activation}; give all of them the size of the output"
        )
    if activation == "softmax" and channels == 1:
        raise ConfigError("a softmax over 1 channel is always 1; use a sigmoid, or give the network out_channels 2")


def _entropy(output: Tensor, targets: Tensor, activation: Activation) -> Tensor:
    """Cross entropy of each voxel, (N, C, ..) with a sigmoid or (N, 1, ..) with a softmax."""
    if activation == "sigmoid":
        return F.binary_cross_entropy_with_logits(output, targets, reduction="none")
    return -(targets * output.log_softmax(dim=1)).sum(dim=1, keepdim=True)


def _log_probabilities(output: Tensor, targets: Tensor, activation: Activation) -> tuple[Tensor, Tensor]:
    """Logarithms of the probabilities of the true class and of all others, without rounding either to 0."""
    if activation == "sigmoid":
        towards = output * (2 * targets - 1)
        return F.logsigmoid(towards), F.logsigmoid(-towards)
    logs = output.log_softmax(dim=1)
    others = logs.masked_fill(targets > 0, -torch.inf).logsumexp(dim=1, keepdim=True)
    return (targets * logs).sum(dim=1, keepdim=True), others


def _probability(output: Tensor, activation: Activation) -> Tensor:
    return output.sigmoid() if activation == "sigmoid" else output.softmax(dim=1)


def _balance(targets: Tensor, weights: Tensor, activation: Activation) -> Tensor:
    """Factors that give all classes the same total weight: of each channel with a sigmoid, else of each voxel."""
    if activation == "sigmoid":
        return targets * _rarity(targets, weights) + (1 - targets) * _rarity(1 - targets, weights)
    return (targets * _rarity(targets, weights)).sum(dim=1, keepdim=True)


def _rarity(mask: Tensor, weights: Tensor) -> Tensor:
    """The inverse of the fraction of the weight in each channel of a mask, (1, C, 1, ..); 0 for an empty channel."""
    inside, total = _sum(mask * weights), _sum(weights)
    return torch.where(inside > 0, total / inside.clamp(min=_TINY), 0)


def _membrane_weighted(targets: Tensor, weights: Tensor, options: LossOptions) -> Tensor:
    """Weights times `membrane_weight` on membrane; between two cells if the channels are affinities."""
    if options.membrane_weight == 1:
        return weights
    if "membrane" in options.classes:
        channel = options.classes.index("membrane")
        membrane = targets[:, channel : channel + 1]
    else:
        membrane = 1 - targets
    return weights * (1 + (options.membrane_weight - 1) * membrane)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    weights = weights.expand_as(values)
    return (values * weights).sum() / weights.sum().clamp(min=_TINY)


def _sum(tensor: Tensor) -> Tensor:
    """Sums of the channels, (1, C, 1, ..)."""
    return tensor.sum(dim=[axis for axis in range(tensor.ndim) if axis != 1], keepdim=True)
