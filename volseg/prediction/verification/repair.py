"""Repair of a target: what its record tells is put back, what is wrong is computed again, and looked at again.

All that may refuse does so before the first change: source, models and mask are opened, and other runs are kept out by
the lock of the journal.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from volseg.config import PredictConfig
from volseg.errors import REDACTED, ConfigError, SourceError, TargetError
from volseg.prediction.prepare import planned_blocks, prepare
from volseg.prediction.run import execute
from volseg.prediction.verification.report import Repair
from volseg.storage import COMPUTED, UNMARKED, expected_pyramid, restore_metadata
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volseg.blocks import BlockSet
    from volseg.config import VerifyConfig
    from volseg.prediction.prepare import RunSpec
    from volseg.prediction.verification.report import VerifyProgress
    from volseg.prediction.verification.survey import Survey
    from volseg.storage import RunRecord


def prepare_run(config: VerifyConfig, record: RunRecord, path: Path) -> RunSpec:
    """The run that computes what is wrong, checked; nothing is changed.

    Raises:
        VolsegError: source, models or mask are gone, or are not those of the run.
    """
    settings = record.settings
    source = config.source or _stored("source", record.source.location)
    models = config.model or tuple(_stored("model", entry.location) for entry in record.models)
    if len(models) != len(record.models):
        raise ConfigError(f"{path} was computed by {counted(len(record.models), 'model')}, --model names {len(models)}")
    for model in () if config.model else models:
        if not Path(model).is_file():
            raise ConfigError(f"the run's model {model} is gone; give its new place with --model")
    run = PredictConfig(
        source=source,
        target=str(path),
        model=models,
        orientations=settings.orientations,
        classes=",".join(settings.classes),
        uncertainty=settings.uncertainty,
        mask=config.mask,
        ignore_voxel_size=True,
        device=settings.device,
        cluster=config.cluster,
        workers=config.workers,
        tls=config.tls,
        resume=True,
    )
    try:
        return prepare(run)[0]
    except SourceError as error:
        if config.source:
            raise
        raise SourceError(f"{error}; if the run's source has moved, give its new place with --source") from error


def _stored(what: str, location: str) -> str:
    if REDACTED in location:
        raise ConfigError(f"the run's {what} was {location}, and its credentials are not stored; give it with --{what}")
    return location


def put_back(path: Path, record: RunRecord, found: Survey) -> int:
    """Put metadata back, and delete shards that should not be and half-written files; returns how many were deleted.

    A folder in the place of a shard goes too, and a file in the place of a folder.

    Raises:
        TargetError: they cannot be written or deleted.
    """
    for fault in found.metadata:
        restore_metadata(path, fault)
    try:
        for name in (*found.stale, *found.half_written):
            _delete(path / name)
        for obstacle in _obstacles(path, record, found.again):
            _delete(obstacle)
        for name in found.stale:
            _remove_empty((path / name).parent)
    except OSError as error:
        raise TargetError(f"cannot delete {error.filename}: {error.strerror}") from error
    return len(found.stale) + len(found.half_written)


def _obstacles(path: Path, record: RunRecord, numbers: BlockSet) -> Iterator[Path]:
    """What keeps the shards of some blocks from being written."""
    pyramid = expected_pyramid(path, record)
    for targets, box in map(pyramid.targets_of, numbers):
        files = (file for target in targets for file in target.shard_files(box))
        for file in (file for file in files if isinstance(file, Path)):
            if file.is_dir():
                yield file
            yield from (folder for folder in file.parents if folder.is_relative_to(path) and folder.is_file())


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    """Delete a folder of the chunk tree and those above it, as far as they are empty."""
    with suppress(OSError):
        while folder.name != "c":
            folder.rmdir()
            folder = folder.parent


def compute_again(spec: RunSpec, record: RunRecord, found: Survey, progress: VerifyProgress) -> dict[int, str]:
    """Compute the damaged blocks, and those whose marks are; returns those that failed, with the reason.

    Raises:
        VolsegError: as `execute`.
    """
    if found.lost_marks:
        planned = planned_blocks(spec)
        for number in np.flatnonzero(found.table.entries["state"] == UNMARKED).tolist():
            if planned is None or number in planned:
                found.again.add(number)
    return execute(spec, record, progress, again=found.again).failed


def repair_of(before: Survey, after: Survey, failed: dict[int, str], deleted: int) -> Repair:
    """What was done, from the marks before and after it."""
    old, new = before.table.entries, after.table.entries
    return Repair(
        blocks=len(before.again) - len(failed),
        equal=sum(
            bool(old["state"][n] == COMPUTED and old["voxels"][n] == new["voxels"][n])
            for n in _without(before.again, failed)
        ),
        failed=failed,
        metadata=tuple(fault.file for fault in before.metadata),
        deleted=deleted,
    )


def _without(numbers: BlockSet, failed: dict[int, str]) -> list[int]:
    return [number for number in numbers if number not in failed]
