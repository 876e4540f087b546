"""What is made small: how far the network's output is from the targets.

Tensors are (N, C, y, x) or (N, C, z, y, x); outputs are taken before their activation, so that logarithms of
probabilities stay exact however sure the network is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from volseg.errors import ConfigError

if TYPE_CHECKING:
    from volseg.config.train_tables import LossSettings

Activation: TypeAlias = Literal["sigmoid", "softmax"]

Loss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Scalar of output, targets and weights."""

_TINY = torch.finfo(torch.float32).tiny
_SMOOTH = 1e-5
"""What keeps a Dice coefficient defined where a class is neither there nor predicted; in shares of the voxels."""


def make_loss(settings: LossSettings, activation: Activation, classes: tuple[str, ...] = ()) -> Loss:
    """The loss of a batch, as a function of output, targets and weights.

    Output is float32 (N, C, ..), targets are alike, 0 or 1. Weights are 0 where nothing counts; they are (N, 1, ..),
    or, under a sigmoid, may be (N, C, ..). All losses are weighted means, so that a factor common to all weights does
    not matter; a batch in which nothing counts has loss 0 and no gradient. Shapes that do not fit raise `ConfigError`.

    - `cross_entropy`: binary for each channel under a sigmoid, categorical under a softmax; with a weight map,
      U-Net's equations 1 and 2 (Ronneberger et al. 2015, arXiv 1505.04597), as a mean.
    - `balanced`: the same, each class weighted by the other's share of the batch's weight (after Xie and Tu 2015,
      arXiv 1504.06375), in each channel under a sigmoid. It is the mean of the classes' own means; a class that the
      batch lacks is left out.
    - `focal`: cross entropy times (1 - p)^gamma, where p is the probability of what is true (Lin et al. 2017, arXiv
      1708.02002, equation 4).
    - `mean_absolute`: |p - target| of each channel.
    - `dice`: 1 - 2 sum(p t) / (sum(p^2) + sum(t^2)), sums over the batch (Milletari et al. 2016, arXiv 1606.04797);
      the mean over channels.

    Args:
        settings: name and constants. `membrane_weight` multiplies the weights of membrane in all but `dice`: where the
            channel called membrane is 1; without one (affinities), in each channel where it is 0.
        activation: what makes probability of the output.
        classes: what the channels stand for; by default membrane, or cell and membrane for a softmax.
    """
    names = classes or (("membrane",) if activation == "sigmoid" else ("cell", "membrane"))

    def loss(output: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        _check(output, targets, weights, activation)
        if settings.name == "dice":
            return _dice(_probability(output, activation), targets, weights)
        each = _of_each_voxel(output, targets, activation, settings)
        if settings.name == "balanced":
            weights = weights * _balance(targets, weights, activation)
        if settings.membrane_weight != 1:
            weights = weights * (1 + (settings.membrane_weight - 1) * _membrane(targets, names))
        return _mean(each, weights)

    return loss


def _check(output: Tensor, targets: Tensor, weights: Tensor, activation: Activation) -> None:
    channels = output.shape[1]
    wanted = {1, channels} if activation == "sigmoid" else {1}
    alike = output.shape == targets.shape and (weights.shape[0], weights.shape[2:]) == (
        output.shape[0],
        output.shape[2:],
    )
    if not alike or weights.shape[1] not in wanted:
        raise ConfigError(
            f"output {tuple(output.shape)}, targets {tuple(targets.shape)} and weights {tuple(weights.shape)} do not "
            f"fit together under a {activation}; give all of them the size of the output"
        )
    if activation == "softmax" and channels == 1:
        raise ConfigError("a softmax over 1 channel is always 1; use a sigmoid, or give the network out_channels 2")


def _of_each_voxel(output: Tensor, targets: Tensor, activation: Activation, settings: LossSettings) -> Tensor:
    """The loss of each voxel, (N, C, ..) or (N, 1, ..)."""
    if settings.name == "mean_absolute":
        return (_probability(output, activation) - targets).abs()
    if settings.name == "focal":
        true, false = _log_probabilities(output, targets, activation)
        return -(settings.gamma * false).exp() * true
    if activation == "sigmoid":
        return F.binary_cross_entropy_with_logits(output, targets, reduction="none")
    return -(targets * output.log_softmax(dim=1)).sum(dim=1, keepdim=True)


def _log_probabilities(output: Tensor, targets: Tensor, activation: Activation) -> tuple[Tensor, Tensor]:
    """Logarithms of the probabilities of what is true and of all else, without rounding either to 0."""
    if activation == "sigmoid":
        towards = output * (2 * targets - 1)
        return F.logsigmoid(towards), F.logsigmoid(-towards)
    each = output.log_softmax(dim=1)
    others = each.masked_fill(targets > 0, -torch.inf).logsumexp(dim=1, keepdim=True)
    return (targets * each).sum(dim=1, keepdim=True), others


def _probability(output: Tensor, activation: Activation) -> Tensor:
    return output.sigmoid() if activation == "sigmoid" else output.softmax(dim=1)


def _balance(targets: Tensor, weights: Tensor, activation: Activation) -> Tensor:
    """Factors that give all classes the same weight in all: of each channel for a sigmoid, else of each voxel."""
    if activation == "sigmoid":
        return targets * _rarity(targets, weights) + (1 - targets) * _rarity(1 - targets, weights)
    return (targets * _rarity(targets, weights)).sum(dim=1, keepdim=True)


def _rarity(mask: Tensor, weights: Tensor) -> Tensor:
    """One over the share of the weight that lies in each channel of a mask, (1, C, 1, ..); 0 where none does."""
    held, total = _sum(mask * weights), _sum(weights)
    return torch.where(held > 0, total / held.clamp(min=_TINY), 0)


def _membrane(targets: Tensor, classes: tuple[str, ...]) -> Tensor:
    """1 on membrane; where no channel is membrane they are affinities, and what they part is."""
    if "membrane" not in classes:
        return 1 - targets
    channel = classes.index("membrane")
    return targets[:, channel : channel + 1]


def _dice(probability: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    weights = weights.expand_as(targets)
    total = _sum(weights)
    share = weights / total.clamp(min=_TINY)
    both, each = _sum(share * probability * targets), _sum(share * (probability**2 + targets**2))
    lost = 1 - (2 * both + _SMOOTH) / (each + _SMOOTH)
    return lost.sum() / (total > 0).sum().clamp(min=1)


def _mean(each: Tensor, weights: Tensor) -> Tensor:
    weights = weights.expand_as(each)
    return (each * weights).sum() / weights.sum().clamp(min=_TINY)


def _sum(tensor: Tensor) -> Tensor:
    """Sums of the channels, (1, C, 1, ..)."""
    return tensor.sum(dim=[axis for axis in range(tensor.ndim) if axis != 1], keepdim=True)
