"""Exponential moving average of the weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from volseg.errors import ResumeError

if TYPE_CHECKING:
    from torch import Tensor, nn

_UPDATES = "updates"
_NETWORK = "network."


class EMA:
    """Exponential moving average of a network's weights and batch-norm statistics.

    Update n, from 0, has the decay min(decay, (1 + n) / (10 + n)), so that the initial weights fade soon; with decay
    0 it is a copy. `torch.optim.swa_utils` has no such warm-up, counts updates on the device, which synchronises at
    each update, and leaves the copy in training mode.

    Attributes:
        network: with the averaged weights, in eval mode and without gradients.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start with a copy of the weights.

        Args:
            network: on its device, before compilation.
            decay: fraction of the average that an update keeps, 0 to below 1.
        """
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Average in the weights after a step; integer buffers, such as batch counts, are copied."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        averages, counts = _split_by_dtype(self.network)
        new_values, new_counts = _split_by_dtype(network)
        torch._foreach_lerp_(averages, new_values, 1 - decay)
        if counts:
            torch._foreach_copy_(counts, new_counts)
        self._updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Copies on the CPU of everything that `load_state_dict` needs; safetensors can store them."""
        weights = {
            f"{_NETWORK}{name}": tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in self.network.state_dict().items()
        }
        return {_UPDATES: torch.tensor(self._updates), **weights}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore a state bit for bit.

        Raises:
            ResumeError: the state belongs to another network.
        """
        weights = {name.removeprefix(_NETWORK): tensor for name, tensor in state.items() if name != _UPDATES}
        try:
            self.network.load_state_dict(weights)
            self._updates = int(state[_UPDATES])
        except (RuntimeError, KeyError) as error:
            raise ResumeError(
                f"the averaged weights of this checkpoint do not fit the network of the run file: {error}; "
                "resume with the settings of its start"
            ) from error


def _split_by_dtype(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Split parameters and buffers into floating-point and other tensors."""
    tensors = [*network.parameters(), *network.buffers()]
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    return floats, [tensor for tensor in tensors if not tensor.is_floating_point()]
