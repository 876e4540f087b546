"""Predict a block: cut it into tiles, send batches through the network, put the cores back together."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from volseg.inference.prepare import DTYPES
from volseg.models.graph import EXCLUSIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from volseg.blocks import Box, Tiling
    from volseg.inference.engine import Engine


class TiledPredictor:
    """Membrane probability of a block, tile by tile; the same bytes whichever block comes before it.

    A batch holds tiles of one block only, in order, so that what a tile is computed together with never depends on
    the order of blocks. One forward pass runs at a time in a process: it has the device to itself.
    """

    def __init__(
        self, network: nn.Module, activate: Callable[[Tensor], Tensor], tiling: Tiling, engine: Engine
    ) -> None:
        """Take what was made ready.

        Args:
            network: as `prepared` made it for the engine's device and precision.
            activate: makes membrane probability (N, 1, y, x) of the network's output.
            tiling: how blocks are cut.
            engine: how the network is run.
        """
        self._network = network
        self._activate = activate
        self._tiling = tiling
        self._engine = engine

    def __call__(self, normalized: NDArray[np.float32], write_box: Box) -> NDArray[np.float32]:
        """Predict one block.

        Args:
            normalized: the read box of the write box (as the tiling states it), (z, y, x).
            write_box: what to predict.

        Returns:
            Membrane probability of the write box, in [0, 1].
        """
        origin = self._tiling.read_box(write_box).start
        probability = np.empty(write_box.shape, np.float32)
        cores = self._tiling.cores(write_box)
        while batch := tuple(islice(cores, self._engine.batch)):
            inputs = [normalized[self._tiling.input_box(core).relative_to(origin).slices] for core in batch]
            for core, made in zip(batch, self._forward(np.stack(inputs)), strict=True):
                kept = core.intersection(write_box)
                probability[kept.relative_to(write_box.start).slices] = made[kept.relative_to(core.start).slices]
        return probability

    def _forward(self, inputs: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Send tiles (N, 1, y, x) through a 2-D network; yields the cores as (1, y, x)."""
        _, rows, columns = self._tiling.crop.slices
        with EXCLUSIVE, torch.inference_mode():
            # Each thread of a process has its own count, and another run may have left another.
            if self._engine.threads and torch.get_num_threads() != self._engine.threads:
                torch.set_num_threads(self._engine.threads)
            device_input: Tensor = torch.from_numpy(inputs).to(
                device=self._engine.device, dtype=DTYPES[self._engine.precision], memory_format=torch.channels_last
            )
            output = self._network(device_input)[..., rows, columns]
            made = self._activate(output).cpu().numpy()
        yield from made
