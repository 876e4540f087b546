"""The weights averaged over the last steps, which score better and steadier than those of any one step."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from volseg.errors import ResumeError

if TYPE_CHECKING:
    from torch import Tensor, nn

_COUNT = "updates"
_NETWORK = "network."


class Averaged:
    """Exponential moving average of a network's weights and of what its batch norms have seen.

    The n-th update, from 0 on, keeps min(decay, (1 + n) / (10 + n)) of the average, so that the first weights are
    soon forgotten; with decay 0 it is a copy. `torch.optim.swa_utils` averages too, but has no such start, counts on
    the device, where each look at the count waits for it, and leaves the copy in training mode.

    Attributes:
        network: the average, in eval mode; it needs no gradients.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Begin with the weights as they are.

        Args:
            network: the plain network on its device, before any compilation.
            decay: share of the average that an update keeps, 0 to below 1.
        """
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights after a step; those that are no fractions, such as counts, are copied."""
        kept = min(self._decay, (1 + self._updates) / (10 + self._updates))
        means, counts = _tensors(self.network)
        means_now, counts_now = _tensors(network)
        torch._foreach_lerp_(means, means_now, 1 - kept)
        if counts:
            torch._foreach_copy_(counts, counts_now)
        self._updates += 1

    def state(self) -> dict[str, Tensor]:
        """All that `load` needs to go on bit for bit: copies on the CPU that safetensors can hold."""
        weights = {
            f"{_NETWORK}{name}": tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in self.network.state_dict().items()
        }
        return {_COUNT: torch.tensor(self._updates), **weights}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a state.

        Raises:
            ResumeError: it is of another network.
        """
        weights = {name.removeprefix(_NETWORK): tensor for name, tensor in state.items() if name != _COUNT}
        try:
            self.network.load_state_dict(weights)
            self._updates = int(state[_COUNT])
        except (RuntimeError, KeyError) as error:
            raise ResumeError(
                f"the averaged weights of this checkpoint are not those of the run's network: {error}; "
                "resume with the settings it was started with"
            ) from error


def _tensors(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and buffers that can be averaged, and those that cannot."""
    every = [*network.parameters(), *network.buffers()]
    fractions = [each for each in every if each.is_floating_point()]
    return fractions, [each for each in every if not each.is_floating_point()]
