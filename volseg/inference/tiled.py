"""A block predicted tile by tile."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from volseg.inference.lane import FORWARD
from volseg.inference.orientations import ORIENTATIONS, Orientation
from volseg.inference.prepare import DTYPES, fitted
from volseg.inference.survive import out_of_memory, parts, smaller, told
from volseg.models.graph import EXCLUSIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor, fx

    from volseg.blocks import Box, Tiling
    from volseg.inference.cropping import Cropped
    from volseg.inference.engine import Engine
    from volseg.inference.onednn import PackedConvolution


@dataclass(frozen=True)
class _Passes:
    """What forward passes are made of.

    Attributes:
        tiling: of their tiles.
        batch: the most tiles of one.
        views: for each orientation, the network for its tiles and where the core lies in its output.
    """

    tiling: Tiling
    batch: int
    views: dict[Orientation, tuple[Cropped, tuple[slice, ...]]]


class TiledPredictor:
    """Probabilities of a block, tile by tile; the same bytes whichever block comes before it.

    A batch holds tiles of one block only, in order, so that what a tile is computed together with never depends on
    the order of blocks. One forward pass runs at a time in a process: it has the device to itself. Where the device
    runs out of memory nevertheless, smaller passes are made from there on, whose last bits may differ.
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
        self._shrinking = threading.Lock()
        self._known: dict[str, PackedConvolution] = {}
        self._passes = self._made_for(tiling, engine.batch)

    def _made_for(self, tiling: Tiling, batch: int) -> _Passes:
        views = {
            orientation: self._fitted(tiling, orientation) for orientation in ORIENTATIONS[self._engine.orientations]
        }
        return _Passes(tiling, batch, views)

    def _fitted(self, tiling: Tiling, orientation: Orientation) -> tuple[Cropped, tuple[slice, ...]]:
        """The network for tiles as an orientation shows them, and where the core lies in its output."""
        shape, crop = tiling.input_shape, tiling.crop
        axes = slice(1 if tiling.footprint.dimensions == 2 else 0, 3)
        sides = list(shape)[axes]
        output = [n - 2 * m for n, m in zip(sides, list(tiling.footprint.margin)[axes], strict=True)]
        kept = orientation.seen(list(zip(crop.start, crop.stop, strict=True))[axes], output)
        lengths = orientation.seen([(0, n) for n in sides], sides)
        made = fitted(self._network, [n for _, n in lengths], [(a, b - 1) for a, b in kept], self._known)
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
        whole: NDArray[np.float32] | None = None
        for core, made in self._cores(normalized, write_box, orientation):
            if whole is None:
                whole = np.empty((len(made), *write_box.shape), np.float32)
            kept = core.intersection(write_box)
            whole[:, *kept.relative_to(write_box.start).slices] = made[:, *kept.relative_to(core.start).slices]
        assert whole is not None, "a write box has at least one tile"
        return whole

    def _cores(
        self, normalized: NDArray[np.float32], write_box: Box, orientation: Orientation
    ) -> Iterator[tuple[Box, NDArray[np.float32]]]:
        """Each core of a block with its probabilities (classes, z, y, x), whatever tiles it takes."""
        origin = self._tiling.read_box(write_box).start
        waiting, seen_as = deque(self._tiling.cores(write_box)), self._tiling
        while waiting:
            passes = self._passes
            if passes.tiling != seen_as:
                cut = (part for core in waiting for part in parts(core, passes.tiling.core))
                waiting, seen_as = deque(part for part in cut if part.intersection(write_box).voxels), passes.tiling
            batch = [waiting.popleft() for _ in range(min(passes.batch, len(waiting)))]
            inputs = [normalized[seen_as.input_box(core).relative_to(origin).slices] for core in batch]
            made = self._survived(np.stack(inputs), passes, orientation)
            if made is None:
                waiting.extendleft(reversed(batch))
            else:
                yield from zip(batch, made, strict=True)

    def _survived(
        self, inputs: NDArray[np.float32], passes: _Passes, orientation: Orientation
    ) -> NDArray[np.float32] | None:
        """A forward pass; None where the device ran out of memory, and smaller ones are to be tried.

        Raises:
            MemoryPlanError: there are no smaller ones.
        """
        try:
            return FORWARD.run(partial(self._forward, inputs, passes, orientation))
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        # Out here, the error and the maps that its frames held are gone.
        self._shrink(passes)
        return None

    def _shrink(self, tried: _Passes) -> None:
        with self._shrinking:
            if self._passes is not tried:  # another thread has
                return
            device = self._engine.device
            if device == "cuda":
                torch.cuda.empty_cache()
            tiling, batch = smaller(tried.tiling, tried.batch, device)
            self._passes = self._made_for(tiling, batch)
        warnings.warn(told(tiling, batch, device), stacklevel=2)

    def _forward(self, inputs: NDArray[np.float32], passes: _Passes, orientation: Orientation) -> NDArray[np.float32]:
        """Send tiles (N, z, y, x) through the network; returns the cores (N, classes, z, y, x)."""
        flat = self._tiling.footprint.dimensions == 2
        fit, core = passes.views[orientation]
        with EXCLUSIVE, torch.inference_mode():
            # Another run may have left another count.
            if self._engine.threads and torch.get_num_threads() != self._engine.threads:
                torch.set_num_threads(self._engine.threads)
            tiles = torch.from_numpy(inputs).to(device=self._engine.device, dtype=DTYPES[self._engine.precision])
            # A 2-D network takes a tile's sections as its channels; a 3-D one has a single channel.
            seen = orientation.turn(tiles if flat else tiles[:, None])
            layout = torch.channels_last if flat else torch.channels_last_3d
            output = fit.network(seen.contiguous(memory_format=layout))
            cores = orientation.back(output[:, :, *core]).float()
            made: NDArray[np.float32] = self._activate(cores[:, :, None] if flat else cores).cpu().numpy()
        return made
