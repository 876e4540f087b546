"""The error of a run's precision against float32, measured on a worker with the run's own volume and weights.

samples of the region -> each network in float32 as loaded, and optimised in the run's precision
-> differences in grey levels -> `auto` takes the fastest precision within its limits

float16, bfloat16   against the network with its norms folded: both differ alike at the border, so any tile will do
float32             against the network as trained, on tiles with the exact halo: shows the effect of folding
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
from volseg.errors import NotFiniteError
from volseg.inference import open_predictor
from volseg.inference.memory.plan import fits_in_memory, plan_memory
from volseg.ops import Grey, to_uint8
from volseg.prediction.autotune.halo_curve import sample_boxes
from volseg.storage import cached

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volseg.blocks import Footprint, Zyx
    from volseg.cluster import Executor, Progress
    from volseg.inference import Precision
    from volseg.prediction.autotune.probe import ProbeSpec

LIMITS: dict[Precision, Tolerance] = {"float16": Tolerance(0.999, 255), "bfloat16": Tolerance(0.98, 16)}
"""Error that `auto` accepts."""
_MAX_SAMPLES, _MAX_SECONDS = 2, 3.0
"""Samples with contrast to measure; one is enough if it took so long."""
_SIDE = 128
"""Voxels of a sample along y and x."""
_CONTEXT = 64
"""Voxels of context around it, at most."""
_MAX_FRACTION = 0.25
"""Of a run's voxels, that measuring may compute: a smaller run would be over before."""
_FORMAT = 5
"""Of the cached measurements; changes with the way of measuring."""


@dataclass(frozen=True, slots=True)
class PrecisionLoss:
    """Measured error of a precision, against float32.

    Attributes:
        fraction: of voxels within one grey level.
        max_error: maximum difference, in grey levels.
    """

    fraction: float
    max_error: float

    def is_acceptable(self, precision: Precision) -> bool:
        """Whether `auto` may choose this precision."""
        limit = LIMITS.get(precision)
        return limit is None or limit.holds(self.fraction, self.max_error)

    def __str__(self) -> str:
        return (
            f"{self.fraction:.2%} of voxels within one grey level of float32, none off by more than {self.max_error:g}"
        )


def next_precision(precision: Precision) -> Precision:
    """The precision to try if this one has too large an error."""
    return "bfloat16" if precision == "float16" else "float32"


def measure_precision(
    probes: Sequence[ProbeSpec], grid: BlockGrid, identity: str, executor: Executor, progress: Progress
) -> list[PrecisionLoss | None]:
    """Measure each network of a run on one worker; None if the samples have no contrast or the run is small.

    Args:
        probes: the networks, in the precision to measure.
        grid: the run's blocks.
        identity: of the volume.
        executor: whose worker measures.
        progress: receives the results.
    """
    losses: list[PrecisionLoss | None] = []
    for probe in probes:
        boxes = centred_boxes(grid, probe.footprint, _SIDE)
        if _measured_voxels(boxes, probe) > _MAX_FRACTION * grid.region.voxels:
            losses.append(None)
            continue
        parts = (_FORMAT, probe.digest, identity, probe.engine, probe.classes, probe.statistics_digest, boxes)
        measure = partial(executor.run_on_one, measure_boxes, boxes, probe)
        values = cached("rounding", "|".join(map(str, parts)), measure, _is_loss)
        losses.append(PrecisionLoss(*values) if values else None)
        if values:
            progress.note(f"{probe.engine.precision}: {losses[-1]}")
    return losses


def _measured_voxels(boxes: Sequence[Box], probe: ProbeSpec) -> int:
    """Voxels that measuring computes in float32."""
    return sum(prod(_tiling(box, probe).input_shape) for box in boxes[:_MAX_SAMPLES])


def _tiling(box: Box, probe: ProbeSpec) -> Tiling:
    """The tile of a sample."""
    footprint = probe.footprint
    core = (1 if footprint.dimensions == 2 else box.shape[0], *box.shape[1:])
    return Tiling(footprint, core, context_halo(footprint) if _is_reference_folded(probe) else footprint.exact_halo())


def context_halo(footprint: Footprint) -> Zyx:
    """A halo on the stride with some context, for comparisons of networks that treat a border alike."""
    axes = zip(footprint.exact_halo(), footprint.margin, footprint.stride, strict=True)
    z, y, x = (min(exact, margin + floor_to(_CONTEXT, stride)) for exact, margin, stride in axes)
    return z, y, x


def _is_reference_folded(probe: ProbeSpec) -> bool:
    """Whether the reference network has its norms folded, as the measured one has.

    A folded norm differs at the border of a map. That is no error of the precision, and it reaches as far as the exact
    halo.
    """
    return probe.engine.precision != "float32"


def centred_boxes(grid: BlockGrid, footprint: Footprint, side: int) -> list[Box]:
    """Small boxes within the region, on the stride: the middles of the samples that halos are measured on.

    Args:
        grid: the run's blocks.
        footprint: of the network.
        side: along y and x, in voxels; a small region has smaller ones.
    """
    boxes = []
    for sample in sample_boxes(grid, footprint):
        within = sample.intersection(grid.region)
        starts, stops = [], []
        for axis, stride in enumerate(footprint.stride):
            first, stop = within.start[axis], within.stop[axis]
            length = ceil_to(min(side if axis else stride, stop - first), stride)
            starts.append(floor_to((first + stop - length) // 2, stride))
            stops.append(starts[-1] + length)
        boxes.append(Box((starts[0], starts[1], starts[2]), (stops[0], stops[1], stops[2])))
    return boxes


def measure_boxes(boxes: Sequence[Box], probe: ProbeSpec) -> list[float]:
    """Fraction within one grey level and maximum error over the first boxes with contrast; empty without any."""
    differences: list[NDArray[np.int16]] = []
    started = time.monotonic()
    for box in boxes:
        difference = measure_box(box, probe)
        differences += [difference] if difference is not None else []
        if len(differences) == _MAX_SAMPLES or (differences and time.monotonic() - started > _MAX_SECONDS):
            break
    if not differences:
        return []
    joined = np.concatenate(differences)
    return [float((joined <= 1).mean()), float(joined.max())]


def measure_box(box: Box, probe: ProbeSpec) -> NDArray[np.int16] | None:
    """Difference in grey levels between the reference and the optimised network, per voxel; None without contrast."""
    from volseg.inference.optimize.fold_batch_norm import fold_batch_norm  # noqa: PLC0415 - loads torch, on workers only
    from volseg.inference.reference import reference_probability  # noqa: PLC0415 - likewise
    from volseg.models.model import load_shared_model  # noqa: PLC0415 - likewise

    tiling = _tiling(box, probe)
    model = load_shared_model(probe.model_file)
    load = replace(probe.load, batch=1, precision="float32")
    grid = BlockGrid(box.shape, box.shape, Box.of_shape(box.shape))
    if not fits_in_memory(plan_memory(model.network, grid, tiling, load), *probe.free):
        return None
    read_box = tiling.read_box(box)
    raw = probe.source.open().read(read_box)
    if raw.min() == raw.max() or not np.isfinite(raw).all():
        return None
    grey = Grey.of(raw, probe.statistics, read_box.start[0])
    predict = open_predictor(probe.model_file, probe.digest, tiling, probe.engine, probe.classes)
    try:
        probability = next(predict(grey, box)).probability
    except NotFiniteError:
        return np.full(box.voxels * len(probe.classes), 255, np.int16)  # it overflows
    if _is_reference_folded(probe):
        model = replace(model, network=fold_batch_norm(model.network))
    reference = to_uint8(reference_probability(model, grey.normalized(), tiling, probe.engine, probe.classes))
    difference: NDArray[np.int16] = np.abs(to_uint8(probability).astype(np.int16) - reference).ravel()
    return difference


def _is_loss(value: Any) -> bool:
    """Whether a cached value is a result of `measure_boxes`; an empty one may have been for lack of memory."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, float) for each in value)
