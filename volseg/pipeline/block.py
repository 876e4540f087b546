"""The way of one block.

read box from the source, mirrored beyond the volume
-> for each network: predict with the run's frozen constants (tiles, device, normalise, network, crop)
-> mean, and standard deviation if requested -> the map's voxels, if these are others -> uint8 (on the device if there
is one estimate only, of the map's voxels)
-> write whole shards -> report, which the driver's journal marks (last)

A read box of a single grey value is empty: its block is not predicted and keeps the target's fill value.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from volseg.blocks import Box, union_read_box
from volseg.errors import BlockError, NotFiniteError
from volseg.ops import Grey, RunningMean, is_constant, to_uint8

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from volseg.blocks import BlockGrid, Tiling
    from volseg.ops import OutputResampling, Statistics


INSPECTED_EVERY = 100
"""Of so many blocks by number, all activations of one are read."""
FALLBACK = "after out of memory"
"""Part of a worker's kind once it computes smaller tiles or batches than planned."""
EMPTY = "empty"
"""Reason for skipping a block whose read box holds a single grey value."""


class Source(Protocol):
    """Reads the grey values of a box, mirrored beyond the volume."""

    def read(self, box: Box) -> NDArray[Any]: ...


class Estimate(NamedTuple):
    """Probabilities of a write box, as one network sees it in one orientation.

    Attributes:
        probability: (classes, z, y, x), float32 in [0, 1]; uint8 in 0..255 if it is the block's only estimate.
        forward_seconds: time of the forward passes; waiting for the device is not counted.
    """

    probability: NDArray[Any]
    forward_seconds: float


class Predictor(Protocol):
    """Predicts a write box from the grey values of its read box, once for each orientation."""

    def __call__(self, grey: Grey, write_box: Box) -> Iterator[Estimate]: ...


class Monitor(Protocol):
    """Watches over a predictor."""

    @property
    def fallback(self) -> str:
        """How it computes since memory ran out; empty if it did not."""

    def inspect(self, grey: Grey, write_box: Box) -> None:
        """Raise NotFiniteError if an activation in a part of a block is NaN or infinite."""


class Sink(Protocol):
    """Stores the bytes of a write box."""

    def write(self, box: Box, volumes: Sequence[NDArray[np.uint8]]) -> tuple[str, int, str]:
        """Write (classes, z, y, x) of each volume: probabilities, then standard deviations.

        Returns their digest, the bytes that they take on the disk, where they are when it returns, and the digest of
        these.
        """

    def clear(self, box: Box) -> None:
        """Delete what an earlier attempt wrote."""


@dataclass(frozen=True)
class EnsembleMember:
    """One network of a run: its tiling, the constants of its input, the network, and what watches over it, if any."""

    tiling: Tiling
    statistics: Statistics
    predict: Predictor
    monitor: Monitor | None = None


@dataclass(frozen=True)
class BlockPipeline:
    """All that a worker needs to process any block of a run.

    Attributes:
        grid: the run's blocks, in voxels of the map.
        members: the networks, whose estimates are averaged.
        source: of the grey values.
        sink: of the probabilities.
        with_std: write the standard deviation of the estimates too.
        kind: of this worker, for its reports: device, instruction set, precision.
        output: from the networks' voxels to those of the map; None if they are the same.
    """

    grid: BlockGrid
    members: tuple[EnsembleMember, ...]
    source: Source
    sink: Sink
    with_std: bool = False
    kind: str = ""
    output: OutputResampling | None = None

    def network_box(self, write_box: Box) -> Box:
        """A write box in the networks' voxels."""
        return write_box if self.output is None else self.output.network_box(write_box)

    def read_box(self, network_box: Box) -> Box:
        """The box that covers every network's read box."""
        return union_read_box([member.tiling for member in self.members], network_box)


@dataclass(frozen=True, slots=True)
class BlockReport:
    """What a worker reports of a processed block.

    Attributes:
        number: of the block.
        voxels: written.
        digest: of the voxels written; empty if there are none.
        seconds: time of the whole block.
        predict_seconds: time of its forward passes.
        skipped: reason for not predicting it, such as `empty`; empty if it was predicted.
        bytes: that its voxels take as stored.
        file_digest: of these bytes.
        kind: of the worker, and how it computes since memory ran out.
        absent: number of chunks that the source lacks in its read box.
        clipped: voxels outside the limits of a conversion.
        repeats: requests to the target's store that this worker has repeated since its last report.
    """

    number: int
    voxels: int
    digest: str
    seconds: float
    predict_seconds: float
    skipped: str = ""
    bytes: int = 0
    file_digest: str = ""
    kind: str = ""
    absent: int = 0
    clipped: int = 0
    repeats: int = 0


def process_block(number: int, pipeline: BlockPipeline) -> BlockReport:
    """Process one block; repeating it gives the same bytes. An empty block is only read, and leaves no shard.

    Raises:
        BlockError: a network's output, or an activation, is not finite; retrying cannot help.
        VolsegError: a read or a write failed.
    """
    started = time.perf_counter()
    write_box = pipeline.grid.box(number)
    network_box = pipeline.network_box(write_box)
    read_box = pipeline.read_box(network_box)
    raw = pipeline.source.read(read_box)
    if is_constant(raw):
        pipeline.sink.clear(write_box)
        return BlockReport(number, 0, "", time.perf_counter() - started, 0.0, skipped=EMPTY, kind=pipeline.kind)
    try:
        estimates, forward_seconds = _predict(raw, number, read_box, network_box, pipeline)
    except NotFiniteError as error:
        reason = f"; {error}" if str(error) else ""
        raise BlockError(
            f"block {number} ({write_box}): the network's output is not finite; its grey values lie between "
            f"{np.nanmin(raw):.3g} and {np.nanmax(raw):.3g}{reason}"
        ) from None
    seen = raw[network_box.relative_to(read_box.start).slices]
    for member in pipeline.members:
        erase_no_data(estimates, seen, member.statistics, network_box.start[0])
    if pipeline.output is not None:
        estimates = [pipeline.output.resample(estimate, write_box) for estimate in estimates]
    volumes = [one if one.dtype == np.uint8 else to_uint8(one) for one in estimates]
    digest, stored, file_digest = pipeline.sink.write(write_box, volumes)
    seconds = time.perf_counter() - started
    fallbacks = (member.monitor.fallback for member in pipeline.members if member.monitor)
    kind = ", ".join(filter(None, (pipeline.kind, *fallbacks)))
    return BlockReport(number, write_box.voxels, digest, seconds, forward_seconds, "", stored, file_digest, kind)


def _predict(
    raw: NDArray[Any], number: int, read_box: Box, network_box: Box, pipeline: BlockPipeline
) -> tuple[list[NDArray[Any]], float]:
    """Probabilities and their standard deviation, or uint8 of a single estimate; and the seconds of all forward passes.

    Raises:
        NotFiniteError: a network's output, or an activation of it, is NaN or infinite.
    """
    estimates, seconds = RunningMean(with_std=pipeline.with_std), 0.0
    for member in pipeline.members:
        box = member.tiling.read_box(network_box)
        grey = Grey.of(raw[box.relative_to(read_box.start).slices], member.statistics, first_section=box.start[0])
        if member.monitor is not None and number % INSPECTED_EVERY == 0:
            member.monitor.inspect(grey, network_box)
        for probability, forward_seconds in member.predict(grey, network_box):
            seconds += forward_seconds
            if probability.dtype == np.uint8:
                return [probability], seconds
            if not np.isfinite(probability).all():
                raise NotFiniteError
            estimates.add(probability)
    return [estimates.mean(), *([estimates.std()] if pipeline.with_std else [])], seconds


def erase_no_data(
    volumes: Sequence[NDArray[Any]], raw: NDArray[Any], statistics: Statistics, first_section: int
) -> None:
    """Set results to 0 where there is no tissue, whatever block they are in: in sections without any, and at NaN.

    Args:
        volumes: (classes, z, y, x) each; changed in place.
        raw: grey values of the same box (z, y, x).
        statistics: constants of the volume or its sections.
        first_section: section of the volume at raw's first.
    """
    if len(statistics) > 1:
        empty = [k for k in range(raw.shape[0]) if np.isinf(statistics[first_section + k][1])]
        for volume in volumes:
            volume[:, empty] = 0
    if raw.dtype.kind == "f":
        finite = np.isfinite(raw)
        for volume in volumes if not finite.all() else ():
            volume *= finite
