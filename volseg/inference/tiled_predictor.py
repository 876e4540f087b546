"""Predicts a block tile by tile."""

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
from volseg.inference.executor import forward_executor
from volseg.inference.oom import is_out_of_memory, oom_warning, reduce_tiling, split_core
from volseg.inference.optimize.optimize import DTYPES, specialized
from volseg.inference.orientations import ORIENTATIONS, Orientation
from volseg.inference.transfer import device_transfer
from volseg.models.receptive_field import EXCLUSIVE
from volseg.pipeline import Estimate

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


_IN_FLIGHT = 2
"""Passes of one block that are submitted at once, so that the device never waits for the next one."""


@dataclass(frozen=True)
class _PassConfig:
    """Settings of forward passes.

    Attributes:
        tiling: of their tiles.
        batch: tiles per pass, at most.
        networks: for each orientation, the network for its tiles and the position of the core in its output.
    """

    tiling: Tiling
    batch: int
    networks: dict[Orientation, tuple[SpecializedNetwork, tuple[slice, ...]]]


@dataclass(frozen=True)
class _OrientedBlock:
    """A block to predict in one orientation.

    Attributes:
        grey: values of the read box.
        write_box: to predict.
        orientation: of its tiles.
    """

    grey: Grey
    write_box: Box
    orientation: Orientation


@dataclass(frozen=True)
class _DeviceResult:
    """A pass that the device may still compute: call `cores` first, which waits for it."""

    cores: Callable[[], NDArray[Any]]
    finite: Callable[[], NDArray[np.bool_]]
    seconds: Callable[[], float]


@dataclass(frozen=True)
class _Pass:
    """Cores in one forward pass; the result is None if the device ran out of memory."""

    cores: list[Box]
    config: _PassConfig
    result: Future[_DeviceResult | None]


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
    ) -> None:
        """Specialise a network for the tiles of each orientation.

        Args:
            network: from `optimize`, for the engine's device and precision.
            activate: maps the network's output (N, channels, ..) to probabilities (N, classes, ..).
            tiling: of blocks.
            engine: how the network is run.
            as_bytes: yield uint8 in 0..255, quantised on the device; only for estimates that are not averaged.
            packed_cache: packed convolutions of this network, shared by predictors; filled here.
        """
        self._network = network
        self._activate = activate
        self._tiling = tiling
        self._engine = engine
        self._as_bytes = as_bytes
        self._transfer = device_transfer(engine.device)
        self._fallback_lock = threading.Lock()
        self._packed_cache: dict[str, PackedConvolution] = {} if packed_cache is None else packed_cache
        self._config = self._configure(tiling, engine.batch)

    def _configure(self, tiling: Tiling, batch: int) -> _PassConfig:
        compiled = batch if self._engine.compiled else 0
        networks = {o: self._specialize(tiling, o, compiled) for o in ORIENTATIONS[self._engine.orientations]}
        return _PassConfig(tiling, batch, networks)

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
            NotFiniteError: the output holds NaN or infinity (checked only for uint8, which cannot show them).
            MemoryPlanError: the smallest tile does not fit the device's memory.
        """
        for orientation in ORIENTATIONS[self._engine.orientations]:
            yield self._predict(_OrientedBlock(grey, write_box, orientation))

    def _predict(self, block: _OrientedBlock) -> Estimate:
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

    def _passes(self, block: _OrientedBlock) -> Iterator[tuple[list[Box], NDArray[Any], float]]:
        """Cores, their probabilities (N, classes, z, y, x), and the seconds of each pass over a block."""
        waiting = deque((core, self._tiling) for core in self._tiling.cores(block.write_box))
        in_flight: deque[_Pass] = deque()
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
                raise NotFiniteError
            yield first.cores, probabilities, result.seconds()

    def _submit(self, waiting: deque[tuple[Box, Tiling]], block: _OrientedBlock) -> _Pass:
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
        return _Pass(batch, config, forward_executor.submit(partial(self._try_forward, batch, config, block)))

    def _fall_back(self, config: _PassConfig) -> None:
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

    def _try_forward(self, cores: list[Box], config: _PassConfig, block: _OrientedBlock) -> _DeviceResult | None:
        """Run a pass; None if memory ran out: the error itself would keep the activations of its frames alive."""
        try:
            return self._forward(cores, config, block)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _forward(self, cores: list[Box], config: _PassConfig, block: _OrientedBlock) -> _DeviceResult:
        """Run tiles through the network, in the forward thread; results are (N, classes, z, y, x)."""
        flat = self._tiling.footprint.dimensions == 2
        specialization, core = config.networks[block.orientation]
        with EXCLUSIVE, torch.inference_mode():
            # Another run may have set another number.
            if self._engine.threads and torch.get_num_threads() != self._engine.threads:
                torch.set_num_threads(self._engine.threads)
            tiles = self._upload(cores, config, block)
            stop_timer = self._transfer.start_timer()
            # A 2-D network takes a tile's sections as its channels; a 3-D one has a single channel.
            oriented = block.orientation.apply(tiles if flat else tiles[:, None])
            layout = torch.channels_last if flat else torch.channels_last_3d
            output = specialization.network(oriented.contiguous(memory_format=layout))
            upright = block.orientation.invert(output[:, :, *core])
            probability = self._activate(upright[:, :, None] if flat else upright)
            finite = probability.isfinite().all() if self._as_bytes else probability.new_ones((), dtype=torch.bool)
            result = quantize(probability) if self._as_bytes else probability.contiguous()
            seconds = stop_timer()
            return _DeviceResult(self._transfer.to_host(result), self._transfer.to_host(finite), seconds)

    def _upload(self, cores: list[Box], config: _PassConfig, block: _OrientedBlock) -> Tensor:
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
