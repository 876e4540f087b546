"""How far a run's precision is from float32, measured on a worker with the run's own volume and weights.

samples of the region -> each network in float32 and eager, and made ready in the run's precision
-> grey levels between the two -> `auto` takes the fastest precision within its limits

float16, bfloat16   against the network with its norms folded: both do alike where a map ends, so any tile will do
float32             against the network as it was trained, on tiles with the exact halo: what folding changed is seen
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import BlockGrid, Box, Tiling
from volseg.blocks.box import ceil_to, floor_to
from volseg.config.tolerance import Tolerance
from volseg.inference import open_predictor
from volseg.inference.memory.plan import fits, plan_memory
from volseg.ops import Grey, to_uint8
from volseg.prediction.autotune.halo_curve import sample_boxes
from volseg.storage import cached, open_volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volseg.cluster import Cluster, Progress
    from volseg.inference import Precision
    from volseg.prediction.autotune.probe import ProbeSpec

LIMITS: dict[Precision, Tolerance] = {"float16": Tolerance(0.999, 255), "bfloat16": Tolerance(0.98, 16)}
"""What `auto` lets a precision cost: the share of voxels within one grey level, and the greatest difference."""
_ENOUGH, _LONG = 2, 3.0
"""Samples that show something; one will do where it took so many seconds."""
_SIDE = 128
"""Voxels of a sample along y and x."""
_AROUND = 64
"""Voxels that are seen around it, if so many reach it."""
_MOST = 0.25
"""Of a run's voxels, those that measuring may compute: a smaller run would be over before."""
_FORMAT = 5
"""Of what is kept; another number where the way of measuring changes."""


@dataclass(frozen=True, slots=True)
class PrecisionLoss:
    """What a precision was measured to cost, against float32.

    Attributes:
        share: of voxels within one grey level of it.
        greatest: difference, in grey levels.
    """

    share: float
    greatest: float

    def within(self, precision: Precision) -> bool:
        """Whether `auto` may take this precision."""
        limit = LIMITS.get(precision)
        return limit is None or limit.holds(self.share, self.greatest)

    def __str__(self) -> str:
        return f"{self.share:.2%} of voxels within one grey level of float32, none off by more than {self.greatest:g}"


def slower(precision: Precision, device: str) -> Precision:
    """What to take where a precision rounds too much."""
    return "bfloat16" if precision == "float16" and device == "cuda" else "float32"


def measure_rounding(
    sampled: Sequence[ProbeSpec], grid: BlockGrid, identity: str, cluster: Cluster, progress: Progress
) -> list[PrecisionLoss | None]:
    """Measure each network of a run on one worker; None where the samples show nothing.

    Args:
        sampled: the networks, in the precision that is to be measured.
        grid: the run's blocks.
        identity: of the volume.
        cluster: whose worker measures.
        progress: told what is found.
    """
    found: list[PrecisionLoss | None] = []
    for each in sampled:
        boxes = _boxes(grid, each)
        if _work(boxes, each) > _MOST * grid.region.voxels:
            found.append(None)
            continue
        key = "|".join(map(str, (_FORMAT, each.digest, identity, each.engine, each.classes, each.statistics, boxes)))
        kept = cached("rounding", key, partial(_asked, each, boxes, cluster), _is_kept)
        found.append(PrecisionLoss(*kept) if kept else None)
        if kept:
            progress.note(f"{each.engine.precision}: {found[-1]}")
    return found


def _work(boxes: Sequence[Box], sampled: ProbeSpec) -> int:
    """Voxels that measuring computes in float32."""
    return sum(prod(_tiling(box, sampled).input_shape) for box in boxes[:_ENOUGH])


def _tiling(box: Box, sampled: ProbeSpec) -> Tiling:
    """The tile of a sample."""
    footprint = sampled.footprint
    core, halo = (1 if footprint.dimensions == 2 else box.shape[0], *box.shape[1:]), footprint.exact_halo()
    if not _folds(sampled):
        return Tiling(footprint, core, halo)
    axes = zip(halo, footprint.margin, footprint.stride, strict=True)
    z, y, x = (min(exact, margin + floor_to(_AROUND, stride)) for exact, margin, stride in axes)
    return Tiling(footprint, core, (z, y, x))


def _folds(sampled: ProbeSpec) -> bool:
    """Whether the network that is measured against has its norms folded, as the one that is measured has.

    A folded norm does otherwise where maps end: that is no rounding, and reaches as far as the exact halo.
    """
    return sampled.engine.precision != "float32"


def _boxes(grid: BlockGrid, sampled: ProbeSpec) -> list[Box]:
    """Small boxes within the region, to the stride: the middles of the samples that halos are measured on."""
    footprint = sampled.footprint
    boxes = []
    for sample in sample_boxes(grid, footprint):
        within = sample.intersection(grid.region)
        axes = zip(within.start, within.stop, footprint.stride, strict=True)
        starts, sides = [], []
        for axis, (first, stop, stride) in enumerate(axes):
            side = ceil_to(min(_SIDE if axis else stride, stop - first), stride)
            starts.append(floor_to((first + stop - side) // 2, stride))
            sides.append(side)
        z, y, x = starts
        boxes.append(Box((z, y, x), (z + sides[0], y + sides[1], x + sides[2])))
    return boxes


def _asked(sampled: ProbeSpec, boxes: list[Box], cluster: Cluster) -> list[float]:
    found: list[float] = cluster.on_one(measure_boxes, boxes, sampled)
    return found


def measure_boxes(boxes: Sequence[Box], sampled: ProbeSpec) -> list[float]:
    """Share within one grey level and greatest difference over the first boxes that show an image; empty without."""
    apart: list[NDArray[np.int16]] = []
    started = time.monotonic()
    for box in boxes:
        found = measure_box(box, sampled)
        apart += [found] if found is not None else []
        if len(apart) == _ENOUGH or (apart and time.monotonic() - started > _LONG):
            break
    if not apart:
        return []
    every = np.concatenate(apart)
    return [float((every <= 1).mean()), float(every.max())]


def measure_box(box: Box, sampled: ProbeSpec) -> NDArray[np.int16] | None:
    """Grey levels between the eager network and the one made ready, for each voxel of a box; None without an image."""
    from volseg.inference.optimize.fold_batch_norm import without_norms  # noqa: PLC0415 - the driver imports this without torch
    from volseg.inference.reference import plain_probability  # noqa: PLC0415 - likewise
    from volseg.models.model import shared_model  # noqa: PLC0415 - likewise

    tiling = _tiling(box, sampled)
    model = shared_model(sampled.model_file)
    load = replace(sampled.load, batch=1, precision="float32")
    grid = BlockGrid(box.shape, box.shape, Box.of_shape(box.shape))
    if not fits(plan_memory(model.network, grid, tiling, load), *sampled.free):
        return None
    seen = tiling.read_box(box)
    raw = open_volume(sampled.source).read(seen)
    if raw.min() == raw.max() or not np.isfinite(raw).all():
        return None
    grey = Grey.of(raw, sampled.statistics, seen.start[0])
    predict = open_predictor(sampled.model_file, sampled.digest, tiling, sampled.engine, sampled.classes)
    estimate = next(predict(grey, box))
    if not np.isfinite(estimate).all():
        return np.full(estimate.size, 255, np.int16)  # it overflows
    made = to_uint8(estimate)
    if _folds(sampled):
        model = replace(model, network=without_norms(model.network))
    exact = to_uint8(plain_probability(model, grey.normalized(), tiling, sampled.engine, sampled.classes))
    apart: NDArray[np.int16] = np.abs(made.astype(np.int16) - exact).ravel()
    return apart


def _is_kept(value: Any) -> bool:
    """Whether a cached value is what `measure_boxes` makes; that nothing was measured may have been want of memory."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, float) for each in value)
