"""A block predicted tile by tile."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from volseg.inference.clock import DEVICE
from volseg.inference.orientations import ORIENTATIONS, Orientation
from volseg.inference.prepare import DTYPES, fitted
from volseg.models.graph import EXCLUSIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor, fx

    from volseg.blocks import Box, Tiling
    from volseg.inference.cropping import Cropped
    from volseg.inference.engine import Engine
    from volseg.inference.onednn import PackedConvolution


class TiledPredictor:
    """Probabilities of a block, tile by tile; the same bytes whichever block comes before it.

    A batch holds tiles of one block only, in order, so that what a tile is computed together with never depends on
    the order of blocks. One forward pass runs at a time in a process: it has the device to itself.
    """

    def __init__(
        self, network: fx.GraphModule, activate: Callable[[Tensor], Tensor], tiling: Tiling, engine: Engine
    ) -> None:
        """Take what was made ready.

        Args:
            network: as `prepared` made it for the engine's device and precision.
            activate: makes probabilities (N, classes, ..) of the network's output (N, channels, ..).
            tiling: how blocks are cut.
            engine: how the network is run.
        """
        self._network = network
        self._activate = activate
        self._tiling = tiling
        self._engine = engine
        known: dict[str, PackedConvolution] = {}
        self._views = {
            orientation: self._fitted(network, orientation, known) for orientation in ORIENTATIONS[engine.orientations]
        }

    def _fitted(
        self, network: fx.GraphModule, orientation: Orientation, known: dict[str, PackedConvolution]
    ) -> tuple[Cropped, tuple[slice, ...]]:
        """The network for tiles as an orientation shows them, and where the core lies in its output."""
        shape, crop = self._tiling.input_shape, self._tiling.crop
        axes = slice(1 if self._tiling.footprint.dimensions == 2 else 0, 3)
        sides = list(shape)[axes]
        output = [n - 2 * m for n, m in zip(sides, list(self._tiling.footprint.margin)[axes], strict=True)]
        kept = orientation.seen(list(zip(crop.start, crop.stop, strict=True))[axes], output)
        lengths = orientation.seen([(0, n) for n in sides], sides)
        made = fitted(network, [n for _, n in lengths], [(a, b - 1) for a, b in kept], known)
        return made, tuple(slice(a - s, b - s) for (a, b), s in zip(kept, made.start, strict=True))

    def __call__(self, normalized: NDArray[np.float32], write_box: Box) -> Iterator[NDArray[np.float32]]:
        """Predict one block.

        Args:
            normalized: the read box of the write box (as the tiling states it), (z, y, x).
            write_box: what to predict.

        Yields:
            Probabilities of the write box, (classes, z, y, x) in [0, 1], once for each orientation.
        """
        for orientation in ORIENTATIONS[self._engine.orientations]:
            yield self._seen(normalized, write_box, orientation)

    def _seen(self, normalized: NDArray[np.float32], write_box: Box, orientation: Orientation) -> NDArray[np.float32]:
        origin = self._tiling.read_box(write_box).start
        whole: NDArray[np.float32] | None = None
        cores = self._tiling.cores(write_box)
        while batch := tuple(islice(cores, self._engine.batch)):
            inputs = [normalized[self._tiling.input_box(core).relative_to(origin).slices] for core in batch]
            for core, made in zip(batch, self._forward(np.stack(inputs), orientation), strict=True):
                if whole is None:
                    whole = np.empty((len(made), *write_box.shape), np.float32)
                kept = core.intersection(write_box)
                whole[:, *kept.relative_to(write_box.start).slices] = made[:, *kept.relative_to(core.start).slices]
        assert whole is not None, "a write box has at least one tile"
        return whole

    def _forward(self, inputs: NDArray[np.float32], orientation: Orientation) -> NDArray[np.float32]:
        """Send tiles (N, z, y, x) through the network; returns the cores (N, classes, z, y, x)."""
        flat = self._tiling.footprint.dimensions == 2
        fit, core = self._views[orientation]
        with EXCLUSIVE, DEVICE.running(), torch.inference_mode():
            # Each thread of a process has its own count, and another run may have left another.
            if self._engine.threads and torch.get_num_threads() != self._engine.threads:
                torch.set_num_threads(self._engine.threads)
            tiles = torch.from_numpy(inputs).to(device=self._engine.device, dtype=DTYPES[self._engine.precision])
            # A 2-D network takes a tile's sections as its channels; a 3-D one has a single channel.
            seen = orientation.turn(tiles if flat else tiles[:, None])
            layout = torch.channels_last if flat else torch.channels_last_3d
            output = fit.network(seen.contiguous(memory_format=layout))
            cores = orientation.back(output[:, :, *core])
            made: NDArray[np.float32] = self._activate(cores[:, :, None] if flat else cores).cpu().numpy()
        return made
