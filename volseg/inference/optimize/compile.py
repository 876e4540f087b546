"""Networks that torch.compile makes faster on a GPU: ReLUs and sums join the convolutions before them.

Compiling takes the better part of a minute a worker, so it is for long runs alone, and for one tile shape; and it takes
a compiler that a machine may lack, so that a network which cannot be compiled runs as it is.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, fx


class Compiled:
    """A network for whole batches; a smaller one, such as the last of a block, goes through it as it is."""

    def __init__(self, network: fx.GraphModule, batch: int, backend: str | Callable[..., object] = "inductor") -> None:
        """Take a network; it is compiled when the first whole batch comes.

        Args:
            network: whose weights lie where they will be used.
            batch: tiles of a whole batch.
            backend: of torch.compile.
        """
        self._network = network
        self._fast: Callable[[Tensor], Tensor] | None = torch.compile(network, dynamic=False, backend=backend)
        self._batch = batch

    def __call__(self, tiles: Tensor) -> Tensor:
        """Map (N, C, [z,] y, x).

        Raises:
            OutOfMemoryError: as the network itself would.
        """
        if self._fast is not None and len(tiles) == self._batch:
            try:
                return self._fast(tiles)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # compilers fail in all manners; what is wrong with the pass fails again below
                self._fast = None
                warnings.warn(
                    f"torch.compile failed here, so networks run as they are, only slower: {_in_a_line(error)}",
                    stacklevel=2,
                )
        made: Tensor = self._network(tiles)
        return made


def _in_a_line(error: Exception) -> str:
    """What went wrong: torch says which backend failed, and below it why."""
    return " ".join(str(error).strip().splitlines()[:2]) or type(error).__name__
