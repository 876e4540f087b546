"""Files of a target that lie outside the rows of its blocks: what is not of the run, and what it left half-written."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from volseg.prediction.verification.report import Fault, Faults
from volseg.prediction.verification.shards import entries_of, shard_number
from volseg.storage import ObjectPath, volume_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volseg.storage import RunRecord, TargetPath

_OF_SYSTEMS = re.compile(r"\.DS_Store|\._.*|\.nfs.*")
_BESIDE_THE_JOURNAL = re.compile(r"[a-z_]+(-[0-9a-z]+)*(\.[a-z]+)?")
PARTIAL = ".partial"


@dataclass
class TreeReport:
    """What was found.

    Attributes:
        stale: shards where the run writes none, to delete.
        half_written: files and folders to delete.
        damaged: faults of the map.
        warnings: other faults.
    """

    stale: list[str] = field(default_factory=list)
    half_written: list[str] = field(default_factory=list)
    damaged: Faults = field(default_factory=Faults)
    warnings: Faults = field(default_factory=Faults)


def check_tree(path: TargetPath, record: RunRecord, *, running: bool) -> TreeReport:
    """List the folders of a target, but not those of a row of shards.

    Args:
        path: of the target.
        record: of its run.
        running: whether a run is writing, whose half-written files are no fault.
    """
    report, names = TreeReport(), volume_names(record)
    for name in names:
        group = path / name
        levels = [str(level) for level in range(len(record.settings.levels) + 1)]
        for entry, _ in entries_of(group):
            is_own = entry in (*levels, "zarr.json") or (not name and entry in names)
            if not is_own and not (group / entry / "zarr.json").is_file():
                _stray(report, path, group / entry)
        for level in levels:
            for entry, is_file in entries_of(group / level):
                if entry == PARTIAL:
                    _half_written(report, path, group / level / entry, running=running)
                elif entry not in ("zarr.json", *([".volseg"] if level == "0" else [])) and (entry != "c" or is_file):
                    _stray(report, path, group / level / entry)
            _check_chunks(report, path, group / level / "c", record, int(level))
    _check_journal(report, path, running=running)
    return report


def _check_journal(report: TreeReport, target: TargetPath, *, running: bool) -> None:
    """Check the names beside the journal."""
    folder = target / "0" / ".volseg"
    for entry, _ in entries_of(folder):
        if entry.endswith(PARTIAL):
            _half_written(report, target, folder / entry, running=running)
        elif not _BESIDE_THE_JOURNAL.fullmatch(entry):
            _stray(report, target, folder / entry)


def _stray(report: TreeReport, target: TargetPath, path: TargetPath) -> None:
    if not _OF_SYSTEMS.fullmatch(path.name):
        report.warnings.note("stray", Fault(str(path.relative_to(str(target)))))


def _half_written(report: TreeReport, target: TargetPath, path: TargetPath, *, running: bool) -> None:
    if not running:
        name = str(path.relative_to(str(target)))
        report.warnings.note("half_written", Fault(name))
        report.half_written.append(name)


def _check_chunks(report: TreeReport, target: TargetPath, root: TargetPath, record: RunRecord, level: int) -> None:
    """Look for names that are none of the chunk tree of a level, and for shards outside the region."""
    channels, grid, shard = len(record.settings.classes), record.grid, record.settings.shard
    if level > 1:  # the shards of level 1 have the numbers of those of level 0
        grid, shard = record.pyramid.grids[level - 1], record.levels[level - 1].shard
    axes = zip(grid.region.start, grid.region.stop, grid.shape, shard, strict=True)
    spans = [(range(a // s, -(-b // s)), range(-(-n // s))) for a, b, n, s in axes]
    if channels > 1:
        spans.insert(0, (range(channels), range(channels)))

    def descend(folder: TargetPath, depth: int) -> None:
        """Check the names in a folder above those of the last axis."""
        for name, is_file in entries_of(folder):
            number, (inside, stored) = shard_number(name), spans[depth]
            if number is None or is_file or number not in stored:
                _stray(report, target, folder / name)
            elif number not in inside:
                _outside(report, target, folder / name, spans[depth + 1 :])
            elif depth + 2 < len(spans):
                descend(folder / name, depth + 1)

    descend(root, 0)


def _outside(report: TreeReport, target: TargetPath, folder: TargetPath, spans: list[tuple[range, range]]) -> None:
    """Check a folder of the chunk tree that the run has not made."""
    for file in _files_below(folder):
        numbers = [shard_number(part) for part in file.relative_to(str(folder)).parts]
        is_shard = len(numbers) == len(spans) and all(
            n in stored for n, (_, stored) in zip(numbers, spans, strict=True)
        )
        if is_shard:
            name = str(file.relative_to(str(target)))
            report.damaged.note("stale", Fault(name, "outside the region"))
            report.stale.append(name)
        else:
            _stray(report, target, file)


def _files_below(folder: TargetPath) -> Iterator[TargetPath]:
    if isinstance(folder, ObjectPath):
        yield from (ObjectPath(folder.root, entry.key) for entry in folder.store.below(folder.key))
        return
    for parent, folders, files in os.walk(folder):
        folders.sort()
        yield from (folder / parent / name for name in sorted(files))
