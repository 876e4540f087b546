"""One block's journey.

read box from the source, mirrored where it leaves the volume
-> for each network: predict with the run's frozen constants (tiles, device, normalise, network, crop)
-> mean, and spread where asked for -> uint8 (on the device, where there is nothing to average)
-> write whole shards -> report, which the driver's journal marks (last)

A read box of one grey value shows nothing: its block is not predicted, and stays the target's fill value.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from volseg.blocks import Box, joint_read_box, mirror_index
from volseg.errors import BlockError, NotFiniteError
from volseg.inference.executor import FORWARD
from volseg.ops import Grey, RunningMean, to_uint8

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from volseg.blocks import BlockGrid, Tiling, Zyx
    from volseg.ops import Statistics


EMPTY = "empty"
"""Why a block was skipped: the source holds one grey value all over its read box."""


class Source(Protocol):
    """Anything that gives the grey values of a box, mirrored where it leaves the volume."""

    def read(self, box: Box) -> NDArray[Any]: ...


class Predictor(Protocol):
    """Anything that makes probabilities: grey values of a read box in, (classes, z, y, x) of the write box out.

    They are float32 in [0, 1]. It may give several estimates of the same box, such as one for each orientation. Where
    a single one is all that a block gets, it may be 0 to 255 already, and then be written as it is.
    """

    def __call__(self, grey: Grey, write_box: Box) -> Iterator[NDArray[Any]]: ...


class Sink(Protocol):
    """Anything that takes the bytes of a write box and returns their digest."""

    def write(self, box: Box, volumes: Sequence[NDArray[np.uint8]]) -> str:
        """Take (classes, z, y, x) of each volume: the probabilities, then their spread where it is asked for."""

    def clear(self, box: Box) -> None:
        """Leave nothing there, whatever an earlier attempt wrote."""


@dataclass(frozen=True)
class EnsembleMember:
    """One network of a run: how it is tiled, what its input is made with, and the network itself."""

    tiling: Tiling
    statistics: Statistics
    predict: Predictor


@dataclass(frozen=True)
class BlockPipeline:
    """What a worker holds to do any block of a run.

    Attributes:
        grid: the run's blocks.
        members: its networks; what they say is averaged.
        source: where grey values come from.
        sink: where probabilities go.
        spread: whether the standard deviation of the estimates is written too.
    """

    grid: BlockGrid
    members: tuple[EnsembleMember, ...]
    source: Source
    sink: Sink
    with_std: bool = False

    def read_box(self, write_box: Box) -> Box:
        """What a block reads: enough for every network."""
        return joint_read_box([member.tiling for member in self.members], write_box)


@dataclass(frozen=True, slots=True)
class BlockReport:
    """What the driver hears of a block that is done.

    Attributes:
        number: the block's.
        voxels: written.
        digest: of the voxels written; empty where none were.
        seconds: that the block took.
        predict_seconds: of these, in forward passes; waiting for those of another block is left out.
        skipped: why it was not predicted, such as `empty`; empty where it was.
    """

    number: int
    voxels: int
    digest: str
    seconds: float
    predict_seconds: float
    skipped: str = ""


def process_block(number: int, journey: BlockPipeline) -> BlockReport:
    """Do one block; a second time gives the same bytes. One that shows nothing is only read, and leaves no shard.

    Raises:
        BlockError: voxels that are no numbers, which no worker could do better.
        VolsegError: a read or a write that failed.
    """
    started = time.perf_counter()
    write_box = journey.grid.box(number)
    read_box = journey.read_box(write_box)
    raw = journey.source.read(read_box)
    refuse_non_finite(raw, read_box, journey.grid.shape, f"block {number}")
    if is_constant(raw):
        journey.sink.clear(write_box)
        return BlockReport(number, 0, "", time.perf_counter() - started, 0.0, skipped=EMPTY)
    before = FORWARD.seconds
    try:
        volumes = _estimated(raw, read_box, write_box, journey)
    except NotFiniteError:
        raise BlockError(
            f"block {number} ({write_box}): the network's output is not finite; its grey values lie between "
            f"{raw.min():.3g} and {raw.max():.3g}: try --precision float32"
        ) from None
    predicted = FORWARD.seconds - before
    digest = journey.sink.write(write_box, volumes)
    return BlockReport(number, write_box.voxels, digest, time.perf_counter() - started, predicted)


def _estimated(raw: NDArray[Any], read_box: Box, write_box: Box, journey: BlockPipeline) -> list[NDArray[np.uint8]]:
    """What all networks make of a block, and where asked for how far apart they are.

    Raises:
        NotFiniteError: one of them made NaN or infinity of it.
    """
    estimates = RunningMean(with_std=journey.with_std)
    for member in journey.members:
        seen = member.tiling.read_box(write_box)
        grey = Grey.of(raw[seen.relative_to(read_box.start).slices], member.statistics, first_section=seen.start[0])
        for estimate in member.predict(grey, write_box):
            if estimate.dtype == np.uint8:
                return [estimate]
            if not np.isfinite(estimate).all():
                raise NotFiniteError
            estimates.add(estimate)
    mean = to_uint8(estimates.mean())
    return [mean, to_uint8(estimates.std())] if journey.with_std else [mean]


def is_constant(raw: NDArray[Any]) -> bool:
    """Whether all voxels of (z, y, x) hold one value; of most blocks that do not, the first section tells.

    >>> is_constant(np.full((2, 3, 3), 7)), is_constant(np.arange(18).reshape(2, 3, 3))
    (True, False)
    """
    value = raw[0, 0, 0]
    return all(bool((section == value).all()) for section in raw)


def refuse_non_finite(raw: NDArray[Any], box: Box, shape: Zyx, name: str) -> None:
    """Refuse NaN and infinity in a float source, naming one such voxel.

    Args:
        raw: what was read.
        box: where; it may leave the volume, where the mirror shows voxels of the volume again.
        shape: of the volume.
        name: of the block.

    Raises:
        BlockError: there is one.
    """
    if raw.dtype.kind != "f":
        return
    finite = np.isfinite(raw)
    if not finite.all():
        place = np.unravel_index(int(np.argmin(finite)), raw.shape)
        where = tuple(mirror_index(int(at) + a, n) for at, a, n in zip(place, box.start, shape, strict=True))
        raise BlockError(
            f"{name}: the source holds NaN or infinity, at {where} (z, y, x) for one; "
            "repair it, or leave it out with --roi"
        )
