"""Places across block faces of a run's map, computed again in one piece, and compared with what is stored.

corners of blocks -> on workers: one read box around each, with the exact halo -> the run's networks -> differences
from the map
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import BlockGrid, Box, ceil_to, common_stride, floor_to, format_zyx, to_zyx, zip3
from volseg.errors import VolsegError
from volseg.pipeline import BlockPipeline, process_block
from volseg.prediction.resume import done_blocks
from volseg.prediction.sink import read_own_record
from volseg.prediction.worker import RunRef, ensemble_of
from volseg.storage import NO_SHARDS, Written, open_volume, read_table, target_path, volume_fingerprint
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from volseg.blocks import Zyx
    from volseg.cluster import Executor, Progress
    from volseg.pipeline import EnsembleMember
    from volseg.storage import ModelEntry, RunRecord, TargetPath

PLACES = 8
_SECONDS = 120.0
"""After which no place is begun."""
_AROUND = (8, 64, 64)
"""Voxels on each side of a face that are compared, along an axis in which the network sees."""
MAX_ERROR = 8
"""Grey levels above which a voxel at a face is off, for a halo that was given or measured."""
MAX_OFF = 0.01
"""Share of such voxels above which a map is seamed."""
_ROUNDED = 1e-4
"""Share of voxels that another order of sums rounds to the next grey level, in float32."""


@dataclass(frozen=True)
class Differences:
    """Differences of a place, or of all, from what one piece gives.

    Attributes:
        voxels: number.
        levels: number of those that differ by 0, 1, .. 255 grey levels.
        face_voxels: number of voxels on both sides of faces.
        face_levels: as `levels`, of these.
    """

    voxels: int
    levels: NDArray[np.int64]
    face_voxels: int
    face_levels: NDArray[np.int64]

    def __add__(self, other: Differences) -> Differences:
        return Differences(
            self.voxels + other.voxels,
            self.levels + other.levels,
            self.face_voxels + other.face_voxels,
            self.face_levels + other.face_levels,
        )


NO_DIFFERENCES = Differences(0, np.zeros(256, np.int64), 0, np.zeros(256, np.int64))


@dataclass(frozen=True)
class OnePiece:
    """How far a map is from one that was computed in one piece.

    Attributes:
        places: that were compared.
        voxels: of these.
        face_voxels: on both sides of faces.
        off: share of these that are more than 8 grey levels off.
        unequal: share of all voxels that differ.
        max_error: largest difference, in grey levels.
        promise: what the run's halo and precision allow, in words.
        seamed: whether it is further off.
        boxes: the places, `z,y,x` ranges, those that differ most first.
    """

    places: int
    voxels: int
    face_voxels: int
    off: float
    unequal: float
    max_error: int
    promise: str
    seamed: bool
    boxes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON."""
        return asdict(self)


def compare_faces(record: RunRecord, reference: RunRef, executor: Executor, progress: Progress) -> OnePiece | str:
    """Compare places across block faces with one piece, or say why that cannot be done.

    Args:
        record: of the run.
        reference: the run; its source and models may lie elsewhere than recorded.
        executor: whose workers compute.
        progress: receives the progress.
    """
    try:
        volume = reference.source.open()
        if volume.shape != record.source.shape or volume_fingerprint(volume) != record.source.identity:
            return f"{reference.source.location} is not the run's source"
        boxes, started = places(record, target_path(reference.target)), time.monotonic()
        if not boxes:
            return "no corner of four done blocks that hold something was found"
        progress.stage("computing places across faces in one piece")
        wanted = (box for box in boxes if time.monotonic() - started < _SECONDS)
        found = list(executor.map(partial(compare_place, reference=reference), wanted))
    except (VolsegError, OSError) as error:
        return str(error)
    total = sum((differences for _, differences in found), NO_DIFFERENCES)
    if not total.face_voxels:
        return "the places that were tried hold a single grey value"
    promise, seamed = judge(record, total)
    worst = sorted(found, key=lambda one: -_max_error(one[1].levels))
    return OnePiece(
        places=len(found),
        voxels=total.voxels,
        face_voxels=total.face_voxels,
        off=float(total.face_levels[MAX_ERROR + 1 :].sum() / total.face_voxels),
        unequal=float(total.levels[1:].sum() / total.voxels),
        max_error=_max_error(total.levels),
        promise=promise,
        seamed=seamed,
        boxes=tuple(str(box) for box, _ in worst),
    )


def judge(record: RunRecord, found: Differences) -> tuple[str, bool]:
    """What a run's halo and precision promise, in words, and whether its map is further off.

    Where both sides are in a lower precision each may be as far from float32 as was measured.
    """
    off = float(found.face_levels[MAX_ERROR + 1 :].sum()) >= MAX_OFF * found.face_voxels
    rule = f"below {MAX_OFF:.0%} of the voxels at faces off by more than {MAX_ERROR} levels"
    settings, losses = record.settings, [entry.precision_loss for entry in record.models]
    if any(entry.footprint.reaches_beyond(entry.halo) for entry in record.models):
        how = "measured" if settings.halo_tolerance else "given"
        return f"halo {' and '.join(format_zyx(entry.halo) for entry in record.models)}, {how}: {rule}", off
    if settings.precision == "float32":
        near, share, most = 0, _ROUNDED, 1
    elif None in losses:
        return f"exact halo in {settings.precision}, whose error was not measured: {rule}", off
    else:
        near, share = 1, max(2 * (1 - loss[0]) for loss in losses if loss)
        most = max(ceil(2 * loss[1]) for loss in losses if loss) + 1
    count = int(found.levels[near + 1 :].sum())
    allowed = share * found.voxels + 4 * sqrt(share * found.voxels) + 1
    words = f"{share:.2%} of voxels more than {counted(near, 'level')} off, none more than {counted(most, 'level')}"
    return f"exact halo in {settings.precision}: {words}", count > allowed or _max_error(found.levels) > most


def _max_error(levels: NDArray[np.int64]) -> int:
    return int(np.flatnonzero(levels)[-1]) if levels.any() else 0


def places(record: RunRecord, target: TargetPath, count: int = PLACES, seed: int = 0) -> list[Box]:
    """Boxes around corners of done blocks, spread at random over a run's region."""
    grid, core, rng = record.grid, core_of(record), np.random.default_rng(seed)
    done = done_blocks(target / "0" / ".volseg", record.pyramid)
    boxes: list[Box] = []
    faces = [
        range(b * (a // b + 1), n, b) for a, b, n in zip(grid.region.start, grid.block, grid.region.stop, strict=True)
    ]
    if not any(len(faces[axis]) for axis in range(3) if _sees(record, axis)):
        return []
    for _ in range(16 * count):
        start = []
        for axis, side in enumerate(core):
            low, high = grid.region.start[axis], grid.region.stop[axis]
            at = int(rng.integers(low, high))
            if len(faces[axis]) and _sees(record, axis):
                at = faces[axis][int(rng.integers(len(faces[axis])))] - side // 2
            start.append(floor_to(at, _stride(record)[axis]))
        z, y, x = start
        box = Box((z, y, x), (z + core[0], y + core[1], x + core[2])).intersection(grid.region)
        numbers = {grid.number(voxel) for voxel in _corners(box)}
        if box not in boxes and all(n in done.blocks and done.sizes[n] != NO_SHARDS for n in numbers):
            boxes.append(box)
        if len(boxes) == count:
            break
    return boxes


def _corners(box: Box) -> Iterator[Zyx]:
    """The voxels at the corners of a box."""
    for z in {box.start[0], box.stop[0] - 1}:
        for y in {box.start[1], box.stop[1] - 1}:
            for x in {box.start[2], box.stop[2] - 1}:
                yield z, y, x


def core_of(record: RunRecord) -> Zyx:
    """Shape of the places: on the networks' strides, a single section if none of them sees others."""
    stride = _stride(record)
    return to_zyx(
        2 * ceil_to(min(n, max(b // 2, 1)), s) if _sees(record, axis) else s
        for axis, (n, b, s) in enumerate(zip(_AROUND, record.settings.block, stride, strict=True))
    )


def _sees(record: RunRecord, axis: int) -> bool:
    """Whether blocks can differ across faces of an axis: one along which a network sees."""
    return any(e.footprint.exact_halo()[axis] > 0 and (axis > 0 or e.footprint.dimensions == 3) for e in record.models)


def _stride(record: RunRecord) -> Zyx:
    return common_stride([entry.footprint for entry in record.models])


def compare_place(box: Box, reference: RunRef) -> tuple[Box, Differences]:
    """Compute a place in one piece and compare it with the map, in the calling process."""
    record = read_own_record(target_path(reference.target), reference.digest)
    sink = _KeptSink()
    grid = BlockGrid(record.shape, record.shape, box)
    members = _members(reference)
    volume = reference.source.open()
    with_std, output = record.settings.uncertainty, record.output
    process_block(0, BlockPipeline(grid, members, volume, sink, with_std=with_std, output=output))
    if not sink.volumes:
        return box, NO_DIFFERENCES
    classes = len(record.settings.classes)
    stored = [open_volume(reference.target, channel=str(k) if classes > 1 else None).read(box) for k in range(classes)]
    apart = np.abs(np.stack(stored).astype(np.int16) - sink.volumes[0])
    faces = _at_faces(box, record)
    return box, Differences(
        apart.size,
        np.bincount(apart.ravel(), minlength=256),
        int(faces.sum()) * classes,
        np.bincount(apart[:, faces].ravel(), minlength=256),
    )


class _KeptSink:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.volumes: list[NDArray[np.uint8]] = []

    def write(self, box: Box, volumes: Sequence[NDArray[np.uint8]]) -> Written:
        """Keep the volumes."""
        self.volumes = list(volumes)
        return Written("", 0, "")

    def clear(self, box: Box) -> None:
        """Do nothing."""


@lru_cache(maxsize=1)
def _members(reference: RunRef) -> tuple[EnsembleMember, ...]:
    """The networks of a run with their exact halo, for one tile of a place."""
    path = target_path(reference.target)
    record = read_own_record(path, reference.digest)
    core = core_of(record)

    def entire(entry: ModelEntry) -> ModelEntry:
        tile = (1 if entry.footprint.dimensions == 2 else core[0], *core[1:])
        return entry.model_copy(
            update={"halo": entry.footprint.exact_halo(), "tile": tile, "batch": 1, "compiled": False}
        )

    tables = [read_table(path / "0" / ".volseg", entry.statistics) for entry in record.models]
    exact = record.model_copy(update={"models": tuple(entire(entry) for entry in record.models)})
    return ensemble_of(exact, reference.models, tables)


def _at_faces(box: Box, record: RunRecord) -> NDArray[np.bool_]:
    """Which voxels of a box lie at a face across which a network sees."""
    found = np.zeros(box.shape, bool)
    for axis, (start, stop) in enumerate(zip3(box.start, box.stop)):
        position = np.arange(start, stop)
        block = record.settings.block[axis]
        beside = (position % block == 0) & (position > start) | ((position + 1) % block == 0) & (position + 1 < stop)
        if _sees(record, axis):
            found[(slice(None),) * axis + (beside,)] = True
    return found
