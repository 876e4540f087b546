"""`--halo auto`: how small a halo may be for these weights on this volume, measured on the workers.

samples of the region -> each network cut off and with its exact halo, on a worker -> curve -> the smallest halo within
the tolerance. The curve is kept for the next run of the same networks on the same volume.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import BlockGrid, Box, Footprint, Tiling
from volseg.errors import MemoryPlanError
from volseg.inference import Engine, Load, open_predictor
from volseg.inference.memory import largest_that_fits, plan_memory
from volseg.ops import Statistics, normalize, to_uint8
from volseg.pipeline.halo import (
    SAMPLES,
    Measured,
    Tally,
    Tolerance,
    candidate_halos,
    chosen,
    curve,
    overhead,
    sample_boxes,
    tally,
)
from volseg.storage import cached, open_volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.blocks import Zyx
    from volseg.cluster import Cluster, Progress
    from volseg.storage import HaloPoint, ModelEntry

_SHOWN = 8
_FORMAT = 1
"""Of what is kept; another number where the way of measuring changes."""


@dataclass(frozen=True)
class Sampled:
    """What a worker needs to know to measure one network on one sample.

    Attributes:
        source: the volume.
        model_file: the network's.
        digest: the network's.
        footprint: the network's.
        statistics: that its input is made with.
        engine: how it is run; the error of a halo is measured within one precision.
        classes: that are written.
        load: what else the worker will be asked to hold.
        free: bytes that it may take, in main memory and on its device.
    """

    source: str
    model_file: str
    digest: str
    footprint: Footprint
    statistics: Statistics
    engine: Engine
    classes: tuple[str, ...]
    load: Load
    free: tuple[int, int]


@dataclass(frozen=True)
class HaloChoice:
    """The halo of one network of a run.

    Attributes:
        halo: chosen.
        curve: what it was chosen by; empty where nothing was measured.
        reason: why it is what it is, a line for people.
    """

    halo: Zyx
    curve: tuple[Measured, ...]
    reason: str


def measure_sample(box: Box, sampled: Sampled) -> Tally | None:
    """Measure one network on one sample, in whichever process this is called; None where there is no image.

    Raises:
        MemoryPlanError: the sample with its halo does not fit into this worker's memory.
    """
    from volseg.models.model import load_model_file  # noqa: PLC0415 - the driver imports this module without torch

    footprint, volume = sampled.footprint, open_volume(sampled.source)
    around = Tiling(footprint, box.shape, footprint.exact_halo())
    cut = Tiling(footprint, box.shape, footprint.margin)
    read_box = around.read_box(box)
    raw = volume.read(read_box)
    # A voxel that is no number fails its block later, and is named there.
    if raw.min() == raw.max() or not np.isfinite(raw).all():
        return None
    network = load_model_file(sampled.model_file).network
    whole = BlockGrid(box.shape, box.shape, Box.of_shape(box.shape))
    largest_that_fits([(around, plan_memory(network, whole, around, sampled.load))], *sampled.free)
    made = []
    for tiling in (cut, around):
        seen = tiling.read_box(box)
        voxels = raw[seen.relative_to(read_box.start).slices]
        predict = open_predictor(sampled.model_file, sampled.digest, tiling, sampled.engine, sampled.classes)
        made.append(to_uint8(next(predict(normalize(voxels, sampled.statistics, seen.start[0]), box))))
    return tally(made[0], made[1], footprint)


def choose_halo(
    sampled: Sampled, grid: BlockGrid, tolerance: Tolerance, identity: str, cluster: Cluster, progress: Progress
) -> HaloChoice:
    """Choose the halo of one network, or say why it is the exact one.

    Args:
        sampled: the network, the volume, and how they meet.
        grid: the run's blocks.
        tolerance: what counts as good enough.
        identity: of the volume.
        cluster: whose workers measure.
        progress: told how far the measuring is.
    """
    footprint = sampled.footprint
    exact = footprint.exact_halo()
    boxes = sample_boxes(grid, footprint)
    if len(candidate_halos(footprint)) == 1:
        return HaloChoice(exact, (), "the only one that suits this network")
    if _work(boxes, footprint) >= grid.region.voxels * overhead(footprint, exact, _tile(grid)):
        return HaloChoice(exact, (), "exact: the region is so small that measuring would cost more than it saves")
    measure = partial(_measure, sampled, boxes, cluster, progress)
    try:
        kept = cached("halo", _key(sampled, grid, identity), measure)
    except _UndecidedError as why_not:
        return HaloChoice(exact, (), f"exact: {why_not}")
    points = tuple(Measured(tuple(p["halo"]), p["share"], p["greatest"]) for p in kept)
    best = chosen(points, tolerance, footprint, _tile(grid))
    why = "none smaller is within" if best.halo == exact else "the smallest within"
    return HaloChoice(best.halo, points, f"{why} {tolerance}")


class _UndecidedError(Exception):
    """The samples say nothing; the message says why."""


def _measure(sampled: Sampled, boxes: Sequence[Box], cluster: Cluster, progress: Progress) -> list[dict[str, object]]:
    """The curve in plain values."""
    whole: Tally | None = None
    started = time.monotonic()
    measured = cluster.each(partial(measure_sample, sampled=sampled), boxes)
    try:
        for number, counted in enumerate(measured, start=1):
            left = (time.monotonic() - started) / number * (len(boxes) - number)
            progress.note(f"halo: sample {number} of {len(boxes)} measured, {left:.0f} s left")
            if counted is not None:
                whole = counted if whole is None else whole.worst_of(counted)
    except MemoryPlanError as error:
        raise _UndecidedError(f"a sample does not fit into a worker's memory ({error})") from error
    if whole is None:
        raise _UndecidedError("the samples hold one grey value only, or voxels that are no numbers")
    return [asdict(point) for point in curve(whole, sampled.footprint)]


def _key(sampled: Sampled, grid: BlockGrid, identity: str) -> str:
    """What the curve depends on."""
    engine = sampled.engine
    parts = (_FORMAT, sampled.digest, identity, grid.region, engine.device, engine.precision, sampled.classes, SAMPLES)
    return "|".join(map(str, (*parts, sampled.statistics)))


def _work(boxes: Sequence[Box], footprint: Footprint) -> int:
    """Voxels that measuring computes."""
    around = (Tiling(footprint, box.shape, footprint.exact_halo()).input_shape for box in boxes)
    return sum(Box.of_shape(shape).voxels for shape in around) + sum(box.voxels for box in boxes)


def _tile(grid: BlockGrid) -> Zyx:
    """The largest tile: a block, or what there is to write."""
    z, y, x = (min(b, n) for b, n in zip(grid.block, grid.region.shape, strict=True))
    return z, y, x


def halo_rows(entry: ModelEntry, grid: BlockGrid) -> list[tuple[HaloPoint, float]]:
    """What was measured, and the voxels that each halo computes for one that is written."""
    tile = _tile(grid)
    return [(point, overhead(entry.footprint, point.halo, tile)) for point in entry.halo_curve]


def halo_lines(entry: ModelEntry, grid: BlockGrid) -> list[str]:
    """A short table for people: the rows around the choice, and some evenly spread."""
    rows = halo_rows(entry, grid)
    at = next(i for i, (point, _) in enumerate(rows) if point.halo == entry.halo)
    near = {max(at - 1, 0), at, min(at + 1, len(rows) - 1)}
    spread = {round(i * (len(rows) - 1) / (_SHOWN - 1)) for i in range(_SHOWN)}
    lines = ["        halo  greatest error  within one grey level  computed for each written"]
    for i in sorted(near | spread):
        point, computed = rows[i]
        halo = ",".join(map(str, point.halo))
        mark = "  <- chosen" if i == at else ""
        lines.append(f"{halo:>12}  {point.greatest:>14g}  {point.share:>20.3%}  {computed:>25.2f}{mark}")
    return lines
