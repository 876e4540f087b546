"""The worker's side of a verification: the shards of a range of blocks against their marks."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from xxhash import xxh3_128

from volseg.blocks import Box
from volseg.prediction.sink import read_own_record
from volseg.prediction.verification.report import Fault, Faults
from volseg.storage import (
    COMPUTED,
    MARK_ENTRY,
    UNMARKED,
    ObjectPath,
    expected_pyramid,
    joint_digest,
    target_path,
    voxel_digest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volseg.blocks import BlockGrid
    from volseg.storage import Pyramid, Target, TargetPath

_READ_BYTES = 1 << 20
"""Read at once, so that a file is hashed from the processor's cache."""


@dataclass(frozen=True, slots=True)
class VerifyRef:
    """Reference to a verification, in a few bytes.

    Attributes:
        target: path of the target.
        digest: of its record.
        deep: decode the voxels too.
        complete: whether all blocks of the run are marked, so that others have no shard.
    """

    target: str
    digest: str
    deep: bool
    complete: bool


class BlockRange(NamedTuple):
    """A part of a row of blocks along x, or whole rows, and the marks of these blocks, 42 bytes each."""

    first: int
    stop: int
    marks: bytes


@dataclass
class RangeReport:
    """What was found in a range of blocks.

    Attributes:
        first: its first block.
        stop: the one after its last.
        checked: blocks that are marked.
        bytes: read from shards.
        voxel_bytes: decoded.
        damaged: faults of the map.
        blocks: that have to be computed again.
        stale: shards to delete.
        warnings: other faults.
        unmarked: shards of blocks that are not done.
    """

    first: int
    stop: int
    checked: int = 0
    bytes: int = 0
    voxel_bytes: int = 0
    damaged: Faults = field(default_factory=Faults)
    blocks: list[int] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    warnings: Faults = field(default_factory=Faults)
    unmarked: int = 0


def check_range(blocks: BlockRange, reference: VerifyRef) -> RangeReport:
    """Compare the shards of a range of blocks with their marks, one shard at a time; with `deep`, one block.

    Raises:
        TargetError: the target is gone, or holds another run.
    """
    pyramid = _open(reference.target, reference.digest)
    at = pyramid.grid.grid_of(blocks.first)
    layer = _Layer(pyramid.grid.grids[at], pyramid.grid.numbers(at).start, pyramid.layers[at])
    report, marks = RangeReport(blocks.first, blocks.stop), np.frombuffer(blocks.marks, MARK_ENTRY)
    for volume in layer.volumes:
        for first, stop in _rows(blocks, layer):
            _check_names(volume, layer, first, stop, marks["state"][first - blocks.first :], reference, report)
    buffer = memoryview(bytearray(_READ_BYTES))
    for number, mark in enumerate(marks, blocks.first):
        report.checked += int(mark["state"] != UNMARKED)
        if mark["state"] == COMPUTED:
            box = layer.grid.box(number - layer.first)
            fault = _fault_of(layer.volumes, box, mark, buffer, report, deep=reference.deep)
            if fault is not None:
                kind, path, reason = fault
                report.damaged.note(kind, Fault(_within(path, reference), reason, number))
                report.blocks.append(number)
    if report.damaged:  # of a lost mount nothing is there
        read_own_record(target_path(reference.target), reference.digest)
    return report


class _Layer(NamedTuple):
    """The blocks of a level, the number of the first among those of all levels, and the volumes that they write."""

    grid: BlockGrid
    first: int
    volumes: tuple[Target, ...]


@lru_cache(maxsize=2)
def _open(target: str, digest: str) -> Pyramid:
    return expected_pyramid(target_path(target), read_own_record(target_path(target), digest))


def _within(path: TargetPath, reference: VerifyRef) -> str:
    return str(path.relative_to(reference.target))


def _rows(blocks: BlockRange, layer: _Layer) -> Iterator[tuple[int, int]]:
    """First and last block of each row, or part of one."""
    nx, first = layer.grid.counts[2], blocks.first
    while first < blocks.stop:
        stop = min(blocks.stop, layer.first + (first - layer.first) // nx * nx + nx)
        yield first, stop
        first = stop


def _check_names(
    volume: Target, layer: _Layer, first: int, stop: int, states: Any, reference: VerifyRef, report: RangeReport
) -> None:
    """Look for files where none should be, in the folders of a part of a row of blocks."""
    grid, number_of_first = layer.grid, first - layer.first
    row_box = Box(grid.box(number_of_first).start, grid.box(stop - 1 - layer.first).stop)
    (z, z1), (y, y1), _ = _shard_span(volume, row_box)
    column_of_first = number_of_first % grid.counts[2]
    begins = column_of_first == 0  # the first part of a row speaks for the rest of its folders
    inside, stored = (range(*_shard_span(volume, box)[2]) for box in (grid.region, Box.of_shape(grid.shape)))
    places = product(volume.parts, range(max(volume.channels, 1)), range(z, z1), range(y, y1))
    for part, channel, row, column in places:  # the shards of a coarser part have the same numbers
        folder = part.shard_folder(channel, row, column)
        for name, is_file in entries_of(folder):
            number, path = shard_number(name), _within(folder / name, reference)
            if number is not None and is_file and number in inside:
                at = number * volume.shard[2] // grid.block[2] - grid.offset[2] - column_of_first
                if 0 <= at < stop - first and states[at] != COMPUTED:
                    _not_computed(path, first + at, states[at], reference, report)
            elif begins and number is not None and is_file and number in stored:
                report.damaged.note("stale", Fault(path, "outside the region"))
                report.stale.append(path)
            elif begins:
                report.warnings.note("stray", Fault(path))


def _not_computed(path: str, number: int, state: int, reference: VerifyRef, report: RangeReport) -> None:
    """Note a shard of a block that has no mark of one."""
    if state == UNMARKED and not reference.complete:
        report.unmarked += 1
        return
    reason = "outside the mask" if state == UNMARKED else "of an empty block"
    report.damaged.note("stale", Fault(path, reason, number))
    report.stale.append(path)


def entries_of(folder: TargetPath) -> list[tuple[str, bool]]:
    """Names in a folder, and whether each is a file; none if it is no folder. In the order of names."""
    if isinstance(folder, ObjectPath):
        return folder.entries()
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return sorted((entry.name, entry.is_file()) for entry in entries)
    return []


def shard_number(name: str) -> int | None:
    """The number that a name of the chunk tree is; None for names that no reader asks for.

    >>> shard_number("12"), shard_number("012"), shard_number("12.bak"), shard_number("c")
    (12, None, None, None)
    """
    return int(name) if name.isdecimal() and name.isascii() and str(int(name)) == name else None


def _shard_span(volume: Target, box: Box) -> list[tuple[int, int]]:
    """First shard of a box along z, y, x, and the one after its last."""
    return [(a // s, -(-b // s)) for a, b, s in zip(box.start, box.stop, volume.shard, strict=True)]


def _fault_of(
    volumes: tuple[Target, ...], box: Box, mark: Any, buffer: memoryview, report: RangeReport, *, deep: bool
) -> tuple[str, TargetPath, str] | None:
    """Kind, file and reason of what is wrong with the shards of a block; None if nothing is."""
    size, joint = 0, list[str]()
    for volume in volumes:
        digests = list[str]()
        for path in volume.shard_files(box):
            try:
                stored, digest = _file_digest(path, buffer)
            except (FileNotFoundError, NotADirectoryError):
                return "missing", path, ""
            except OSError as error:
                return "unreadable", path, error.strerror or str(error)
            size += stored
            digests.append(digest)
        joint.append(joint_digest(digests))
    report.bytes += size
    first = volumes[0].shard_files(box)[0]
    if size != mark["bytes"]:
        return "size", first, f"{size} bytes, {mark['bytes']} marked"
    if joint_digest(joint) != mark["files"].tobytes().hex():
        return "digest", first, ""
    return _fault_of_voxels(volumes, box, mark, report) if deep else None


def _fault_of_voxels(
    volumes: tuple[Target, ...], box: Box, mark: Any, report: RangeReport
) -> tuple[str, TargetPath, str] | None:
    digests = list[str]()
    for volume in volumes:
        try:
            voxels = volume.read(box)
        except Exception as error:  # each codec raises errors of its own
            return "unreadable", volume.shard_files(box)[0], str(error)
        report.voxel_bytes += voxels.nbytes
        digests.append(voxel_digest(voxels))
        if volume.coarser is not None and not volume.coarser_agrees(box, voxels):
            return "voxels", volume.coarser.shard_files(box)[0], "not made of the finer level"
    if joint_digest(digests) != mark["voxels"].tobytes().hex():
        return "voxels", volumes[0].shard_files(box)[0], ""
    return None


def _file_digest(path: TargetPath, buffer: memoryview) -> tuple[int, str]:
    """Bytes of a file, and their digest."""
    digest, size = xxh3_128(), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            size += count
    return size, digest.hexdigest()
