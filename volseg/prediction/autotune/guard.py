"""Before the first block every kind of worker compares each ready network with the one that was trained.

one small tile of the region -> on a worker of each kind: every activation, and the output against float32
-> a lower precision with too little room, or another, is refused, or `auto` takes the next one

A worker that joins later, of a kind that the run record does not name, does the same when it opens the run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import BlockGrid, Box, Tiling
from volseg.inference import worker_kind
from volseg.inference.memory.plan import fits_in_memory, plan_memory
from volseg.ops import Grey
from volseg.prediction.autotune.precision import centred_boxes, context_halo
from volseg.storage import ActivationEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volseg.cluster import Executor
    from volseg.errors import VolsegError
    from volseg.inference.network_check import NetworkCheck
    from volseg.prediction.autotune.probe import ProbeSpec

_SIDE = 64
"""Voxels of the sample along y and x, without its halo."""
_MAX_SAMPLES = 3
"""Places where contrast is searched; without it, noise is the sample."""
_MANY_TIMES = 64.0
"""Headroom of float16 below which it is said."""


@dataclass(frozen=True)
class Guarded:
    """What the workers found of one network.

    Attributes:
        model: path.
        checks: one of each kind of worker; empty if none had the memory.
    """

    model: str
    checks: tuple[NetworkCheck, ...]

    @property
    def fault(self) -> VolsegError | None:
        """Why it may not be run so; None if it may."""
        return next((fault for check in self.checks if (fault := check.fault(self.model))), None)

    @property
    def entry(self) -> ActivationEntry | None:
        """For the run record; None if nothing was read."""
        if not self.checks:
            return None
        worst = max(self.checks, key=lambda check: check.largest)
        kinds = tuple(sorted(check.kind for check in self.checks))
        return ActivationEntry(largest=worst.largest, layer=worst.layer, headroom=worst.headroom, kinds=kinds)

    @property
    def note(self) -> str:
        """A line for people if there is little room, or nothing was read; else empty."""
        entry = self.entry
        if entry is None:
            return f"{self.model} was not compared with float32, for lack of memory"
        if entry.headroom >= _MANY_TIMES:
            return ""
        return (
            f"{self.model}: the largest activation on a sample is {entry.largest:,.0f} ({entry.layer}); "
            f"{self.checks[0].precision} ends at {entry.headroom:.0f} times as much"
        )


def guard(probes: Sequence[ProbeSpec], grid: BlockGrid, executor: Executor) -> list[Guarded]:
    """Check each network on a worker of each kind.

    Args:
        probes: the networks, in the precision of the run.
        grid: the run's blocks.
        executor: whose workers check.
    """
    engine = probes[0].engine
    # On all workers only where they differ: a network is loaded for it.
    alike = len(set(executor.run_on_all(worker_kind, engine))) == 1
    results = []
    for probe in probes:
        found: list[NetworkCheck | None] = (
            [executor.run_on_one(check_on_sample, probe, grid)]
            if alike
            else executor.run_on_all(check_on_sample, probe, grid)
        )
        by_kind = {check.kind: check for check in found if check is not None}
        results.append(Guarded(probe.model_file, tuple(by_kind.values())))
    return results


def check_on_sample(probe: ProbeSpec, grid: BlockGrid) -> NetworkCheck | None:
    """Check a network on a small tile of the region, in the calling process; None if memory does not suffice."""
    from volseg.inference.guard import check_network  # noqa: PLC0415 - loads torch, on workers only
    from volseg.inference.oom import is_out_of_memory  # noqa: PLC0415 - likewise
    from volseg.models.model import load_shared_model  # noqa: PLC0415 - likewise

    model = load_shared_model(probe.model_file)
    boxes = centred_boxes(grid, probe.footprint, _SIDE)[:_MAX_SAMPLES]
    box = boxes[0]
    tiling = Tiling(probe.footprint, box.shape, context_halo(probe.footprint))
    load = replace(probe.load, batch=1, precision="float32", slots=1)
    plan = plan_memory(model.network, BlockGrid(box.shape, box.shape, Box.of_shape(box.shape)), tiling, load)
    if not fits_in_memory(plan, *probe.free):
        return None
    try:
        tile = _sample(probe, boxes, tiling)
        return check_network(model, tile, tiling, probe.engine, worker_kind(probe.engine))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def _sample(probe: ProbeSpec, boxes: Sequence[Box], tiling: Tiling) -> NDArray[np.float32]:
    """Normalised input of the first tile with contrast; noise if there is none."""
    volume = probe.source.open()
    for box in boxes:
        input_box = tiling.input_box(box)
        tile = Grey.of(volume.read(input_box), probe.statistics, input_box.start[0]).normalized()
        if tile.min() < tile.max():
            return tile
    return np.random.default_rng(0).standard_normal(tiling.input_shape, np.float32)
