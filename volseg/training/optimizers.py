"""How weights follow the gradient."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import torch
from torch.nn.utils import clip_grad_norm_

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.amp import GradScaler
    from torch.optim import Optimizer

    from volseg.training.settings import OptimizerSettings


def make_optimizer(network: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """The optimiser of a network's learned weights.

    Kernels decay; biases and the scales and shifts of normalisations, which are vectors, do not. The decay of `adamw`
    stands beside the gradient (Loshchilov and Hutter 2019), that of `adam` and `sgd` is part of it.

    Args:
        network: on the device where it is trained.
        settings: kind and constants; the rate is the full one, until `step_down` is given another.
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


def step_down(optimizer: Optimizer, rate: float, clip: float | None, scaler: GradScaler | None = None) -> Tensor:
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
