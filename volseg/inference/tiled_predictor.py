"""Predicts a block tile by tile."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from volseg.blocks import format_zyx
from volseg.inference.executor import forward_executor
from volseg.inference.finite import read_activations
from volseg.inference.network_check import not_finite
from volseg.inference.oom import is_out_of_memory, oom_warning, reduce_tiling, split_core
from volseg.inference.optimize.optimize import DTYPES, specialized
from volseg.inference.orientations import ORIENTATIONS, Orientation
from volseg.inference.passes import DeviceResult, OrientedBlock, Pass, PassConfig
from volseg.inference.transfer import device_transfer
from volseg.malloc import mmap_large_blocks
from volseg.models.receptive_field import EXCLUSIVE, traced
from volseg.pipeline import FALLBACK, Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor, fx, nn

    from volseg.blocks import Box, Tiling
    from volseg.errors import VolsegError
    from volseg.inference.optimize.onednn import PackedConvolution
    from volseg.inference.optimize.optimize import SpecializedNetwork
    from volseg.inference.settings import Engine
    from volseg.ops import Grey


_IN_FLIGHT = 2
"""Passes of one block that are submitted at once, so that the device never waits for the next one."""


class TiledPredictor:
    """Predicts the probabilities of a block, tile by tile; its bytes do not depend on earlier blocks.

    A batch holds tiles of one block only, in order, so that the tiles computed together do not depend on the order of
    blocks. A process runs one forward pass at a time. After the device ran out of memory, passes are smaller, and the
    last bits may differ.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        activate: Callable[[Tensor], Tensor],
        tiling: Tiling,
        engine: Engine,
        *,
        as_bytes: bool = False,
        packed_cache: dict[str, PackedConvolution] | None = None,
        trained: nn.Module | None = None,
    ) -> None:
        """Specialise a network for the tiles of each orientation.

        Args:
            network: from `optimize`, for the engine's device and precision.
            activate: maps the network's output (N, channels, ..) to probabilities (N, classes, ..).
            tiling: of blocks.
            engine: how the network is run.
            as_bytes: yield uint8 in 0..255, quantised on the device; only for estimates that are not averaged.
            packed_cache: packed convolutions of this network, shared by predictors; filled here.
            trained: the network in float32, which tells what helps if an output is not finite.
        """
        self._network = network
        self._activate = activate
        self._tiling = tiling
        self._engine = engine
        self._as_bytes = as_bytes
        self._transfer = device_transfer(engine.device)
        self._fallback_lock = threading.Lock()
        self._packed_cache: dict[str, PackedConvolution] = {} if packed_cache is None else packed_cache
        self._trained = trained
        self._config = self._configure(tiling, engine.batch)

    @property
    def fallback(self) -> str:
        """Tiles and batch after the device ran out of memory; empty if it did not."""
        config = self._config
        if (config.tiling, config.batch) == (self._tiling, self._engine.batch):
            return ""
        return f"tiles {format_zyx(config.tiling.core)} batch {config.batch} {FALLBACK}"

    def _configure(self, tiling: Tiling, batch: int) -> PassConfig:
        compiled = batch if self._engine.compiled else 0
        networks = {o: self._specialize(tiling, o, compiled) for o in ORIENTATIONS[self._engine.orientations]}
        return PassConfig(tiling, batch, networks)

    def _specialize(
        self, tiling: Tiling, orientation: Orientation, compiled: int
    ) -> tuple[SpecializedNetwork, tuple[slice, ...]]:
        """The network for tiles in an orientation, and the position of the core in its output."""
        axes = slice(1 if tiling.footprint.dimensions == 2 else 0, 3)
        shape, crop = list(tiling.input_shape)[axes], tiling.crop
        output = [n - 2 * m for n, m in zip(shape, list(tiling.footprint.margin)[axes], strict=True)]
        core = orientation.apply_to_spans(list(zip(crop.start, crop.stop, strict=True))[axes], output)
        lengths = [n for _, n in orientation.apply_to_spans([(0, n) for n in shape], shape)]
        network = specialized(
            self._network, lengths, [(a, b - 1) for a, b in core], self._packed_cache, compiled=compiled
        )
        return network, tuple(slice(a - s, b - s) for (a, b), s in zip(core, network.start, strict=True))

    def __call__(self, grey: Grey, write_box: Box) -> Iterator[Estimate]:
        """Predict one block.

        Args:
            grey: values of the write box's read box, as the tiling gives it.
            write_box: to predict.

        Yields:
            An estimate for each orientation: (classes, z, y, x), float32 in [0, 1] or uint8.

        Raises:
            NotFiniteError: the network's output, before its activation, holds NaN or infinity.
            WorkerError: it does, and that of the same network without fused layers does not.
            MemoryPlanError: the smallest tile does not fit the device's memory.
        """
        for orientation in ORIENTATIONS[self._engine.orientations]:
            yield self._predict(OrientedBlock(grey, write_box, orientation))

    def _predict(self, block: OrientedBlock) -> Estimate:
        write_box, total = block.write_box, 0.0
        whole: NDArray[Any] | None = None
        for cores, probabilities, seconds in self._passes(block):
            total += seconds
            if whole is None:
                whole = np.empty((probabilities.shape[1], *write_box.shape), probabilities.dtype)
            for core, probability in zip(cores, probabilities, strict=True):
                part = core.intersection(write_box)
                inside = part.relative_to(core.start).slices
                whole[:, *part.relative_to(write_box.start).slices] = probability[:, *inside]
        assert whole is not None, "a write box has at least one tile"
        return Estimate(whole, total)

    def _passes(self, block: OrientedBlock) -> Iterator[tuple[list[Box], NDArray[Any], float]]:
        """Cores, their probabilities (N, classes, z, y, x), and the seconds of each pass over a block."""
        waiting = deque((core, self._tiling) for core in self._tiling.cores(block.write_box))
        in_flight: deque[Pass] = deque()
        while waiting or in_flight:
            while waiting and len(in_flight) < _IN_FLIGHT:
                in_flight.append(self._submit(waiting, block))
            first = in_flight.popleft()
            result = first.result.result()
            if result is None:
                self._fall_back(first.config)
                waiting.extendleft((core, first.config.tiling) for core in reversed(first.cores))
                continue
            probabilities = result.cores()
            if not result.finite().all():
                raise self._fault(first.cores, first.config, block)
            yield first.cores, probabilities, result.seconds()

    def inspect(self, grey: Grey, write_box: Box) -> None:
        """Read all activations of a block's first tile, layer by layer, as fused layers hide NaN.

        Args:
            grey: as for a prediction.
            write_box: likewise.

        Raises:
            NotFiniteError: one is NaN or infinite.
        """
        config, orientation = self._config, ORIENTATIONS[self._engine.orientations][0]
        block = OrientedBlock(grey, write_box, orientation)
        core = next(config.tiling.cores(write_box))
        layer = forward_executor.submit(partial(self._first_not_finite, core, config, block)).result()
        if layer:
            raise self._fault([core], config, block)

    def _fault(self, cores: list[Box], config: PassConfig, block: OrientedBlock) -> VolsegError:
        """Why an output of these tiles is not finite, and what helps."""
        layer: str | None = ""
        for core in cores:
            layer = forward_executor.submit(partial(self._first_not_finite, core, config, block)).result()
            if layer:
                again = partial(self._first_not_finite, core, config, block, self._trained)
                return not_finite(layer, forward_executor.submit(again).result(), self._engine.precision)
        return not_finite(layer, "", self._engine.precision)

    def _first_not_finite(
        self, core: Box, config: PassConfig, block: OrientedBlock, trained: nn.Module | None = None
    ) -> str | None:
        """The first layer with NaN or infinity for one tile, empty if there is none; None if memory does not suffice.

        In the forward thread. The plain network is taken, or the one that was trained, in float32.
        """
        try:
            # Apart from a retained heap, which this larger pass would widen for the rest of the run.
            with EXCLUSIVE, torch.inference_mode(), mmap_large_blocks():
                tiles = self._oriented(self._upload([core], config, block), block.orientation)
                graph = config.networks[block.orientation][0].plain
                if trained is not None:
                    graph = deepcopy(traced(trained)).to(self._engine.device)
                    tiles = tiles.float()
                return read_activations(graph, tiles)[0].not_finite
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _submit(self, waiting: deque[tuple[Box, Tiling]], block: OrientedBlock) -> Pass:
        """Submit a batch of the waiting cores; those of a larger tiling are split first."""
        config = self._config
        batch: list[Box] = []
        while waiting and len(batch) < config.batch:
            core, tiling = waiting.popleft()
            if tiling == config.tiling:
                batch.append(core)
            else:
                parts = split_core(core, config.tiling.core)
                smaller = [part for part in parts if part.intersection(block.write_box).voxels]
                waiting.extendleft((part, config.tiling) for part in reversed(smaller))
        return Pass(batch, config, forward_executor.submit(partial(self._try_forward, batch, config, block)))

    def _fall_back(self, config: PassConfig) -> None:
        """Make later passes smaller than those of a configuration.

        Raises:
            MemoryPlanError: one tile cannot be halved further.
        """
        with self._fallback_lock:
            if self._config is not config:  # another thread has done so
                return
            device = self._engine.device
            if device == "cuda":
                torch.cuda.empty_cache()
            tiling, batch = reduce_tiling(config.tiling, config.batch, device)
            self._config = self._configure(tiling, batch)
        warnings.warn(oom_warning(tiling, batch, device), stacklevel=2)

    def _try_forward(self, cores: list[Box], config: PassConfig, block: OrientedBlock) -> DeviceResult | None:
        """Run a pass; None if memory ran out: the error itself would keep the activations of its frames alive."""
        try:
            return self._forward(cores, config, block)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _forward(self, cores: list[Box], config: PassConfig, block: OrientedBlock) -> DeviceResult:
        """Run tiles through the network, in the forward thread; results are (N, classes, z, y, x)."""
        flat = self._tiling.footprint.dimensions == 2
        specialization, core = config.networks[block.orientation]
        with EXCLUSIVE, torch.inference_mode():
            # Another run may have set another number.
            if self._engine.threads and torch.get_num_threads() != self._engine.threads:
                torch.set_num_threads(self._engine.threads)
            tiles = self._upload(cores, config, block)
            stop_timer = self._transfer.start_timer()
            output = specialization.network(self._oriented(tiles, block.orientation))
            upright = block.orientation.invert(output[:, :, *core])
            probability = self._activate(upright[:, :, None] if flat else upright)
            finite = upright.isfinite().all()  # a sigmoid makes 1 of infinity, and a byte 0 of NaN
            result = quantize(probability) if self._as_bytes else probability.contiguous()
            seconds = stop_timer()
            return DeviceResult(self._transfer.to_host(result), self._transfer.to_host(finite), seconds)

    def _oriented(self, tiles: Tensor, orientation: Orientation) -> Tensor:
        """The network's input: a 2-D one takes a tile's sections as its channels, a 3-D one has a single channel."""
        flat = self._tiling.footprint.dimensions == 2
        layout = torch.channels_last if flat else torch.channels_last_3d
        return orientation.apply(tiles if flat else tiles[:, None]).contiguous(memory_format=layout)

    def _upload(self, cores: list[Box], config: PassConfig, block: OrientedBlock) -> Tensor:
        """Tiles (N, z, y, x) on the device, normalised there, in the engine's precision."""
        origin = self._tiling.read_box(block.write_box).start
        tiles = [block.grey[config.tiling.input_box(core).relative_to(origin).slices] for core in cores]
        raw, mean, scale = (
            self._transfer.to_device(np.stack(arrays))
            for arrays in zip(*((tile.raw, tile.mean, tile.scale) for tile in tiles), strict=True)
        )
        return raw.float().sub_(mean).mul_(scale).to(DTYPES[self._engine.precision])


def quantize(probability: Tensor) -> Tensor:
    """Quantise probabilities to uint8 on any device, bit for bit as `volseg.ops.to_uint8`."""
    return probability.clamp(0, 1).mul(255).round().to(torch.uint8)
