"""Networks compiled by torch.compile for a GPU: it fuses ReLUs and sums into the convolutions before them.

Compiling takes most of a minute per worker, so it is for long runs and for one tile shape. It needs a C compiler; a
network that cannot be compiled runs eagerly.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, fx


class CompiledNetwork:
    """A network compiled for whole batches; smaller ones, such as the last of a block, run eagerly."""

    def __init__(self, network: fx.GraphModule, batch: int, backend: str | Callable[..., object] = "inductor") -> None:
        """Wrap a network; the first whole batch compiles it.

        Args:
            network: on its device.
            batch: tiles of a whole batch.
            backend: of torch.compile.
        """
        self._network = network
        self._compiled: Callable[[Tensor], Tensor] | None = torch.compile(network, dynamic=False, backend=backend)
        self._batch = batch

    def __call__(self, tiles: Tensor) -> Tensor:
        """Map (N, C, [z,] y, x).

        Raises:
            OutOfMemoryError: as the eager network.
        """
        if self._compiled is not None and len(tiles) == self._batch:
            try:
                return self._compiled(tiles)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # compilers raise any type; an error of the pass itself is raised again below
                self._compiled = None
                warnings.warn(
                    f"torch.compile failed, so the network runs without it, more slowly: {_one_line(error)}",
                    stacklevel=2,
                )
        output: Tensor = self._network(tiles)
        return output


def _one_line(error: Exception) -> str:
    """The first two lines of a message: torch names the backend, then the cause."""
    return " ".join(str(error).strip().splitlines()[:2]) or type(error).__name__
