"""`--halo auto`: how small a halo may be for these weights on this volume, measured on the workers.

samples of the region -> each network cut off and with its exact halo, on a worker -> what is wrong at which depth
-> the smallest halo within the tolerance, for the run's tile. What was measured is kept for the next run of the same
networks on the same volume.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import BlockGrid, Box, Footprint, Tiling
from volseg.blocks.tiling import split_evenly
from volseg.errors import ClusterError, MemoryPlanError
from volseg.inference import open_predictors
from volseg.inference.memory.plan import largest_that_fits, plan_memory
from volseg.ops import Grey, to_uint8
from volseg.prediction.autotune.halo_curve import (
    SAMPLES,
    Depths,
    Measured,
    by_depth,
    candidate_halos,
    chosen,
    corner,
    curve,
    sample_boxes,
)
from volseg.storage import cached, open_volume

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from volseg.blocks import Zyx
    from volseg.cluster import Cluster, Progress
    from volseg.config.tolerance import Tolerance
    from volseg.prediction.autotune.probe import ProbeSpec
    from volseg.storage import ModelEntry

_SHOWN = 8
_SECONDS, _SHARE = 8.0, 0.02
"""How long samples may take: so many seconds, or this share of what the run will take if that is more."""
_FORMAT = 6
"""Of what is kept; another number where the way of measuring changes."""


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


def measure_sample(box: Box, sampled: ProbeSpec) -> Depths | None:
    """Measure one network on one sample, in whichever process this is called; None where there is no image.

    Raises:
        MemoryPlanError: the sample does not fit into this worker's memory.
    """
    from volseg.models.model import shared_model  # noqa: PLC0415 - the driver imports this module without torch

    footprint, volume = sampled.footprint, open_volume(sampled.source)
    network = shared_model(sampled.model_file).network
    # Each block in flight may be a sample with a network of its own.
    weights = sampled.load.slots * sum(parameter.numel() for parameter in network.parameters())
    load, grid = replace(sampled.load, batch=1), BlockGrid(box.shape, box.shape, Box.of_shape(box.shape))
    cut = Tiling(footprint, box.shape, footprint.margin)

    def fitting(tilings: Iterator[Tiling]) -> Tiling:
        plans = ((tiling, plan_memory(network, grid, tiling, load, weights)) for tiling in tilings)
        return largest_that_fits(plans, *sampled.free)[0]

    # Only what is cut off must be seen whole; with the exact halo, tiles leave no seam.
    boxes = [box, corner(box, footprint)]
    tilings = [fitting(iter([cut])), fitting(_in_parts(boxes[1], footprint))]
    read_box = tilings[0].read_box(boxes[0]).union(tilings[1].read_box(boxes[1]))
    raw = volume.read(read_box)
    # A voxel that is no number fails its block later, and is named there.
    if raw.min() == raw.max() or not np.isfinite(raw).all():
        return None
    predictors = open_predictors(sampled.model_file, sampled.digest, tilings, sampled.engine, sampled.classes)
    made = []
    for part, tiling, predict in zip(boxes, tilings, predictors, strict=True):
        seen = tiling.read_box(part)
        voxels = raw[seen.relative_to(read_box.start).slices]
        made.append(to_uint8(next(predict(Grey.of(voxels, sampled.statistics, seen.start[0]), part))))
    return by_depth(made[0], made[1], boxes[1].relative_to(box.start), footprint)


def _in_parts(box: Box, footprint: Footprint) -> Iterator[Tiling]:
    """Ways to see part of a sample with the exact halo: whole, then in more and more tiles."""
    for parts in (1, 2, 4):
        across = (1 if footprint.dimensions == 2 else parts, parts, parts)
        yield Tiling(footprint, split_evenly(box.shape, across, footprint.stride), footprint.exact_halo())


def measure_halo(
    sampled: ProbeSpec, grid: BlockGrid, core: Zyx, identity: str, cluster: Cluster, progress: Progress
) -> list[Depths] | str:
    """Measure one network on samples of a region, or say in a line why the halo is to be exact.

    Args:
        sampled: the network, the volume, and how they meet.
        grid: the run's blocks.
        core: the tile that the run would like.
        identity: of the volume.
        cluster: whose workers measure.
        progress: told how far the measuring is.
    """
    footprint = sampled.footprint
    candidates, boxes = candidate_halos(footprint), sample_boxes(grid, footprint)
    if len(candidates) == 1:
        return "the only one that suits this network"
    least, most = (Tiling(footprint, core, halo).overhead for halo in (candidates[0], candidates[-1]))
    if _work(boxes, footprint) >= grid.region.voxels * (most - least):
        return "exact: the region is so small that measuring would cost more than it saves"
    worth = while_it_pays(boxes, grid.region.voxels * most * len(boxes) / _work(boxes, footprint))
    try:
        kept = cached(
            "halo", _key(sampled, grid, identity), partial(_measure, sampled, worth, cluster, progress), _is_kept
        )
    except _UndecidedError as why_not:
        return f"exact: {why_not}"
    return [Depths(*(np.array(table, np.int64) for table in sample)) for sample in kept]


def choose_halo(measured: list[Depths] | str, tolerance: Tolerance, footprint: Footprint, core: Zyx) -> HaloChoice:
    """The smallest halo within a tolerance for tiles of a given core, or the exact one with the reason."""
    if isinstance(measured, str):
        return HaloChoice(footprint.exact_halo(), (), measured)
    points = curve(measured, footprint, core)
    best = chosen(points, tolerance, footprint, core)
    why = "none smaller is within" if best.halo == footprint.exact_halo() else "the smallest within"
    count = f"{len(measured)} sample{'s' if len(measured) > 1 else ''}"
    return HaloChoice(best.halo, points, f"{why} {tolerance} ({count})")


class _UndecidedError(Exception):
    """The samples say nothing; the message says why."""


def while_it_pays(boxes: Iterable[Box], run: float) -> Iterator[Box]:
    """The boxes of samples, for as long as measuring takes little time beside the run.

    Args:
        boxes: the first is always taken.
        run: how many samples take as long as the run.
    """
    started = time.monotonic()
    for number, box in enumerate(boxes):
        each = (time.monotonic() - started) / max(number, 1)
        if (number + 1) * each > max(_SECONDS, _SHARE * run * each):
            return
        yield box


def _measure(sampled: ProbeSpec, boxes: Iterable[Box], cluster: Cluster, progress: Progress) -> list[Any]:
    """What was found at which depth of each sample, in plain values."""
    kept: list[Any] = []
    started = time.monotonic()
    try:
        for number, found in enumerate(cluster.each(partial(measure_sample, sampled=sampled), boxes), start=1):
            left = (time.monotonic() - started) / number * (SAMPLES - number)
            progress.note(f"halo: sample {number} of up to {SAMPLES} measured, at most {left:.0f} s left")
            if found is not None:
                kept.append([found.voxels.tolist(), found.within.tolist(), found.greatest.tolist()])
    except MemoryPlanError as error:
        needs = str(error).partition(";")[0]
        raise _UndecidedError(
            f"a sample, twice the halo wide, does not fit into a worker's memory ({needs})"
        ) from error
    except ClusterError as error:
        raise _UndecidedError(f"samples could not be measured ({error})") from error
    if not kept:
        raise _UndecidedError("the samples hold one grey value only, or voxels that are no numbers")
    return kept


def _is_kept(value: Any) -> bool:
    """Whether a cached value is what `_measure` makes."""
    return isinstance(value, list) and bool(value) and all(isinstance(each, list) and len(each) == 3 for each in value)


def _key(sampled: ProbeSpec, grid: BlockGrid, identity: str) -> str:
    """What the curve depends on."""
    engine = sampled.engine
    parts = (_FORMAT, SAMPLES, sampled.digest, sampled.footprint, identity, grid.region, sampled.classes)
    return "|".join(map(str, (*parts, engine.device, engine.precision, sampled.statistics)))


def _work(boxes: Sequence[Box], footprint: Footprint) -> int:
    """Voxels that measuring computes."""
    around = (Tiling(footprint, corner(box, footprint).shape, footprint.exact_halo()).input_shape for box in boxes)
    return sum(Box.of_shape(shape).voxels for shape in around) + sum(box.voxels for box in boxes)


def halo_lines(entry: ModelEntry) -> list[str]:
    """A short table for people: the rows around the choice, and some evenly spread."""
    points = entry.halo_curve
    at = next(i for i, point in enumerate(points) if point.halo == entry.halo)
    near = {max(at - 1, 0), at, min(at + 1, len(points) - 1)}
    with_std = {round(i * (len(points) - 1) / (_SHOWN - 1)) for i in range(_SHOWN)}
    lines = ["        halo  greatest error  within one grey level  computed for each written"]
    for i in sorted(near | with_std):
        halo = ",".join(map(str, points[i].halo))
        mark = "  <- chosen" if i == at else ""
        computed = Tiling(entry.footprint, entry.tile, points[i].halo).overhead
        lines.append(f"{halo:>12}  {points[i].greatest:>14g}  {points[i].share:>20.3%}  {computed:>25.2f}{mark}")
    return lines
