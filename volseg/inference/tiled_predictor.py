"""A block predicted tile by tile."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from volseg.errors import NotFiniteError
from volseg.inference.executor import FORWARD
from volseg.inference.oom import oom_warning, out_of_memory, parts, smaller
from volseg.inference.optimize.optimize import DTYPES, specialized
from volseg.inference.orientations import ORIENTATIONS, Orientation
from volseg.inference.transfer import transfer_to
from volseg.models.receptive_field import EXCLUSIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from numpy.typing import NDArray
    from torch import Tensor, fx

    from volseg.blocks import Box, Tiling
    from volseg.inference.optimize.onednn import PackedConvolution
    from volseg.inference.optimize.optimize import SpecializedNetwork
    from volseg.inference.settings import Engine
    from volseg.ops import Grey


_AHEAD = 2
"""Passes of one block that are under way at once: a device finds the next one waiting."""


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
    views: dict[Orientation, tuple[SpecializedNetwork, tuple[slice, ...]]]


@dataclass(frozen=True)
class _Work:
    """What is to be predicted.

    Attributes:
        grey: the read box.
        write_box: whose probabilities are wanted.
        orientation: to see it in.
    """

    grey: Grey
    write_box: Box
    orientation: Orientation


@dataclass(frozen=True)
class _Made:
    """A pass that is under way, to be asked once it is wanted; then the device is done with it."""

    cores: Callable[[], NDArray[Any]]
    finite: Callable[[], NDArray[np.bool_]]
    seconds: Callable[[], float]


@dataclass(frozen=True)
class _Sent:
    """Cores that were sent to the device."""

    cores: list[Box]
    passes: _Passes
    made: Future[_Made | None]


class TiledPredictor:
    """Probabilities of a block, tile by tile; the same bytes whichever block comes before it.

    A batch holds tiles of one block only, in order, so that what a tile is computed together with never depends on
    the order of blocks. One forward pass runs at a time in a process: it has the device to itself. Where the device
    runs out of memory nevertheless, smaller passes are made from there on, whose last bits may differ.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        activate: Callable[[Tensor], Tensor],
        tiling: Tiling,
        engine: Engine,
        *,
        as_bytes: bool = False,
        known: dict[str, PackedConvolution] | None = None,
    ) -> None:
        """Take what was made ready.

        Args:
            network: as `prepared` made it for the engine's device and precision.
            activate: makes probabilities (N, classes, ..) of the network's output (N, channels, ..).
            tiling: how blocks are cut.
            engine: how the network is run.
            as_bytes: give probabilities as 0 to 255, made on the device; for those that are averaged with no others.
            known: weights of this network that were packed for other tilings; grows.
        """
        self._network = network
        self._activate = activate
        self._tiling = tiling
        self._engine = engine
        self._as_bytes = as_bytes
        self._bus = transfer_to(engine.device)
        self._shrinking = threading.Lock()
        self._known: dict[str, PackedConvolution] = {} if known is None else known
        self._passes = self._made_for(tiling, engine.batch)

    def _made_for(self, tiling: Tiling, batch: int) -> _Passes:
        compiled = batch if self._engine.compiled else 0
        views = {each: self._fitted(tiling, each, compiled) for each in ORIENTATIONS[self._engine.orientations]}
        return _Passes(tiling, batch, views)

    def _fitted(
        self, tiling: Tiling, orientation: Orientation, compiled: int
    ) -> tuple[SpecializedNetwork, tuple[slice, ...]]:
        """The network for tiles as an orientation shows them, and where the core lies in its output."""
        shape, crop = tiling.input_shape, tiling.crop
        axes = slice(1 if tiling.footprint.dimensions == 2 else 0, 3)
        sides = list(shape)[axes]
        output = [n - 2 * m for n, m in zip(sides, list(tiling.footprint.margin)[axes], strict=True)]
        kept = orientation.seen(list(zip(crop.start, crop.stop, strict=True))[axes], output)
        lengths = [n for _, n in orientation.seen([(0, n) for n in sides], sides)]
        places = [(a, b - 1) for a, b in kept]
        made = specialized(self._network, lengths, places, self._known, compiled=compiled)
        return made, tuple(slice(a - s, b - s) for (a, b), s in zip(kept, made.start, strict=True))

    def __call__(self, grey: Grey, write_box: Box) -> Iterator[NDArray[Any]]:
        """Predict one block.

        Args:
            grey: the read box of the write box (as the tiling states it).
            write_box: what to predict.

        Yields:
            Probabilities of the write box, (classes, z, y, x), once for each orientation: float32 in [0, 1], or bytes.

        Raises:
            NotFiniteError: the network made NaN or infinity of it, where bytes are made, which cannot show that.
            MemoryPlanError: the device's memory does not hold the smallest tile.
        """
        for orientation in ORIENTATIONS[self._engine.orientations]:
            yield self._seen(_Work(grey, write_box, orientation))

    def _seen(self, work: _Work) -> NDArray[Any]:
        whole: NDArray[Any] | None = None
        for core, made in self._cores(work):
            if whole is None:
                whole = np.empty((len(made), *work.write_box.shape), made.dtype)
            kept = core.intersection(work.write_box)
            whole[:, *kept.relative_to(work.write_box.start).slices] = made[:, *kept.relative_to(core.start).slices]
        assert whole is not None, "a write box has at least one tile"
        return whole

    def _cores(self, work: _Work) -> Iterator[tuple[Box, NDArray[Any]]]:
        """Each core of a block with its probabilities (classes, z, y, x), whatever tiles it takes."""
        waiting = deque((core, self._tiling) for core in self._tiling.cores(work.write_box))
        under_way: deque[_Sent] = deque()
        while waiting or under_way:
            while waiting and len(under_way) < _AHEAD:
                under_way.append(self._send(waiting, work))
            sent = under_way.popleft()
            made = self._arrived(sent)
            if made is None:
                waiting.extendleft((core, sent.passes.tiling) for core in reversed(sent.cores))
            else:
                yield from zip(sent.cores, made, strict=True)

    def _send(self, waiting: deque[tuple[Box, Tiling]], work: _Work) -> _Sent:
        """Take a batch of the cores that wait, cut smaller where tiles have become smaller, and begin with it."""
        passes = self._passes
        batch: list[Box] = []
        while waiting and len(batch) < passes.batch:
            core, cut_for = waiting.popleft()
            if cut_for == passes.tiling:
                batch.append(core)
            else:
                smaller = [part for part in parts(core, passes.tiling.core) if part.intersection(work.write_box).voxels]
                waiting.extendleft((part, passes.tiling) for part in reversed(smaller))
        return _Sent(batch, passes, FORWARD.submit(partial(self._tried, batch, passes, work)))

    def _arrived(self, sent: _Sent) -> NDArray[Any] | None:
        """What a pass made; None where the device ran out of memory, and smaller ones are to be tried.

        Raises:
            MemoryPlanError: there are no smaller ones.
            NotFiniteError: it is not finite.
        """
        made = sent.made.result()
        if made is None:
            self._shrink(sent.passes)
            return None
        cores = made.cores()
        FORWARD.count(made.seconds())
        if not made.finite().all():
            raise NotFiniteError
        return cores

    def _shrink(self, tried: _Passes) -> None:
        with self._shrinking:
            if self._passes is not tried:  # another thread has
                return
            device = self._engine.device
            if device == "cuda":
                torch.cuda.empty_cache()
            tiling, batch = smaller(tried.tiling, tried.batch, device)
            self._passes = self._made_for(tiling, batch)
        warnings.warn(oom_warning(tiling, batch, device), stacklevel=2)

    def _tried(self, cores: list[Box], passes: _Passes, work: _Work) -> _Made | None:
        """A pass, or None for want of memory: an error that is kept would keep the maps that its frames hold."""
        try:
            return self._forward(cores, passes, work)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return None

    def _forward(self, cores: list[Box], passes: _Passes, work: _Work) -> _Made:
        """Send tiles through the network; (N, classes, z, y, x) comes back. The lane's thread does this."""
        flat = self._tiling.footprint.dimensions == 2
        fit, kept = passes.views[work.orientation]
        with EXCLUSIVE, torch.inference_mode():
            # Another run may have left another count.
            if self._engine.threads and torch.get_num_threads() != self._engine.threads:
                torch.set_num_threads(self._engine.threads)
            tiles = self._uploaded(cores, passes, work)
            stop = self._bus.clock()
            # A 2-D network takes a tile's sections as its channels; a 3-D one has a single channel.
            seen = work.orientation.turn(tiles if flat else tiles[:, None])
            layout = torch.channels_last if flat else torch.channels_last_3d
            output = fit.network(seen.contiguous(memory_format=layout))
            turned = work.orientation.back(output[:, :, *kept])
            probability = self._activate(turned[:, :, None] if flat else turned)
            finite = probability.isfinite().all() if self._as_bytes else probability.new_ones((), dtype=torch.bool)
            made = bytes_of(probability) if self._as_bytes else probability.contiguous()
            seconds = stop()
            return _Made(self._bus.down(made), self._bus.down(finite), seconds)

    def _uploaded(self, cores: list[Box], passes: _Passes, work: _Work) -> Tensor:
        """Tiles (N, z, y, x) on the device, normalised there, in the engine's precision."""
        origin = self._tiling.read_box(work.write_box).start
        tiles = [work.grey[passes.tiling.input_box(core).relative_to(origin).slices] for core in cores]
        raw = self._bus.up(np.stack([tile.raw for tile in tiles])).float()
        mean, scale = (self._bus.up(np.stack(each)) for each in zip(*((t.mean, t.scale) for t in tiles), strict=True))
        return raw.sub_(mean).mul_(scale).to(DTYPES[self._engine.precision])


def bytes_of(probability: Tensor) -> Tensor:
    """`volseg.ops.to_uint8` on any device, bit for bit."""
    return probability.clamp(0, 1).mul(255).round().to(torch.uint8)
