"""Verification of a target, from its path to a report; with `repair`, until it is sound.

run record -> marks -> metadata, files beside the journal, names -> shards of all marked blocks, on workers
-> repair: put back, delete, compute again, look again -> report
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.blocks import format_zyx
from volseg.cluster import check_cluster, connect, refuse_other_versions
from volseg.errors import ConfigError, TargetError
from volseg.prediction.verification.repair import compute_again, prepare_run, put_back, repair_of
from volseg.prediction.verification.report import Fault, Faults, Repair, VerifyReport
from volseg.prediction.verification.seam_report import seams_of_other, seams_of_run
from volseg.prediction.verification.sound_ranges import SoundRanges
from volseg.prediction.verification.survey import Survey, check_shards, survey
from volseg.storage import (
    FORMAT,
    SKIPPED,
    ObjectPath,
    RecordError,
    in_use,
    is_running,
    is_target,
    journal_state,
    local_output,
    locked,
    read_record,
    target_path,
)
from volseg.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.config import VerifyConfig
    from volseg.prediction.verification.report import VerifyProgress
    from volseg.storage import RunRecord, TargetPath


def verify(config: VerifyConfig, progress: VerifyProgress) -> VerifyReport:
    """Compare a target with its run record and its marks.

    Args:
        config: what to compare, and where.
        progress: receives the progress.

    Raises:
        ConfigError: options that contradict each other.
        TargetError: it is no target, or cannot be read; or a run is writing into it that is to be repaired.
        VolsegError: the cluster refused; for a repair, as a resumed run.
    """
    _refuse_options(config)
    if (config.seams or config.block) and not is_target(target_path(config.target)):
        return _report_of_other(config, progress)
    return _verify_run(config, progress)


def _verify_run(config: VerifyConfig, progress: VerifyProgress) -> VerifyReport:
    path = _place(config)
    try:
        record = read_record(path)
    except RecordError as error:
        if not (path / "0" / ".volseg").is_dir():
            raise
        if config.repair:
            raise TargetError(f"{error}; or restore {path / 'zarr.json'} from a copy: no other file tells it") from None
        return _report_of_record(config, path, str(error))
    if record.format != FORMAT:
        raise TargetError(
            f"{path} was written by volseg {record.version} with format {record.format}, and this is volseg "
            f"{__version__} with format {FORMAT}; verify it with the version that wrote it"
        )
    if config.repair:
        assert isinstance(path, Path)  # as `_place` says
        return _repair(config, path, record, progress)
    running = is_running(path / "0" / ".volseg")
    if running:
        progress.note(f"a run is writing into {path}; what it has marked so far is verified")
    progress.stage("reading marks and folders")
    found = survey(path, record, running=running)
    _check_shards(config, path, record, found, progress)
    report = _report(config, path, found, running=running)
    if config.seams is False or running or not (report.sound and report.complete):
        return report
    return replace(report, seams=seams_of_run(config, path, record, progress))


def _place(config: VerifyConfig) -> TargetPath:
    """Place of the target.

    Raises:
        TargetError: it is in an object store, where nothing is repaired.
    """
    path = target_path(config.target)
    if isinstance(path, ObjectPath) and config.repair:
        raise TargetError(
            f"--repair of {path} is for paths only; `volseg predict --resume` computes lost shards again, and "
            "`volseg predict --overwrite` the map"
        )
    return path if isinstance(path, ObjectPath) else local_output(config.target)


def _refuse_options(config: VerifyConfig) -> None:
    check_cluster(config.cluster, config.workers)
    for name, value in (("source", config.source), ("model", config.model), ("mask", config.mask)):
        needs = "--repair" if name == "mask" else "--repair or --seams"
        if value and not (config.repair or (config.seams and name != "mask")):
            raise ConfigError(f"--{name} needs {needs}; give both, or leave it out")
    if config.repair and config.seams:
        raise ConfigError("--seams looks at a sound map; give --repair first, then --seams without it")
    if config.block is not None and (config.seams is False or is_target(target_path(config.target))):
        raise ConfigError(
            f"--block {format_zyx(config.block)} is for a map of another tool whose seams are looked for; leave it out"
        )
    if config.block is not None and min(config.block) < 2:
        raise ConfigError(f"--block {format_zyx(config.block)} has faces at every voxel; give at least 2")


def _check_shards(
    config: VerifyConfig,
    path: TargetPath,
    record: RunRecord,
    found: Survey,
    progress: VerifyProgress,
    only: Sequence[tuple[int, int]] | None = None,
) -> None:
    """Compare shards on a cluster; what was sound is kept if that is interrupted."""
    journal = path / "0" / ".volseg"
    key = f"{record.digest}-{journal_state(journal)}-{'voxels' if config.deep else 'files'}"
    sound = SoundRanges(journal, key, resume=config.resume) if only is None else None
    if config.cluster != "serial":
        progress.stage("waiting for workers")
    try:
        with connect(config.cluster, config.workers, tls=config.tls, note=progress.note) as executor:
            if config.cluster != "serial":
                refuse_other_versions(executor, progress)
            check_shards(path, record, found, executor, progress, deep=config.deep, sound=sound, only=only)
    except BaseException:
        if sound is not None:
            sound.write()
        raise
    if sound is not None:
        sound.delete()


def _repair(config: VerifyConfig, path: Path, record: RunRecord, progress: VerifyProgress) -> VerifyReport:
    """Verify with the lock held, put back and delete; then compute, which takes the lock itself; then look again."""
    lock = path / "0" / ".volseg" / "lock"
    failed: dict[int, str] = {}
    spec, deleted = None, 0
    with locked(lock, in_use(path)) if lock.parent.is_dir() else nullcontext():
        found = survey(path, record, running=False)
        _check_shards(config, path, record, found, progress)
        if found.needs_run:
            spec = prepare_run(config, record, path)
        deleted = put_back(path, record, found)
    if spec is not None:
        failed = compute_again(spec, record, found, progress)
    after = survey(path, record, running=False)
    if found.lost_marks:
        _check_shards(config, path, record, after, progress)
    elif found.dirty:
        _check_shards(config, path, record, after, progress, found.dirty)
    if not found.lost_marks:
        after.unmarked = found.unmarked
    after.checked, after.checked_before = found.checked, found.checked_before
    after.bytes, after.voxel_bytes = after.bytes + found.bytes, after.voxel_bytes + found.voxel_bytes
    after.seconds += found.seconds
    return _report(config, path, after, repaired=repair_of(found, after, failed, deleted))


def _report(
    config: VerifyConfig, path: TargetPath, found: Survey, *, running: bool = False, repaired: Repair | None = None
) -> VerifyReport:
    return VerifyReport(
        target=str(path),
        compared="voxels" if config.deep else "digests",
        running=running,
        blocks=found.planned,
        done=found.done,
        empty=found.table.count(SKIPPED),
        checked=found.checked,
        checked_before=found.checked_before,
        unmarked=found.unmarked,
        lacking=found.lacking,
        damaged=dict(found.damaged),
        warnings=dict(found.warnings),
        bytes=found.bytes,
        voxel_bytes=found.voxel_bytes,
        seconds=found.seconds,
        repaired=repaired,
    )


def _report_of_other(config: VerifyConfig, progress: VerifyProgress) -> VerifyReport:
    """The report of another tool's map, of which only seams are looked for."""
    seams = seams_of_other(config, progress)
    return VerifyReport(config.target, "nothing", False, 0, 0, 0, 0, 0, 0, 0, {}, {}, 0, 0, 0.0, seams=seams)


def _report_of_record(config: VerifyConfig, path: TargetPath, reason: str) -> VerifyReport:
    """The report of a target whose run record is damaged, so that nothing else can be compared."""
    damaged = Faults()
    damaged.note("record", Fault("zarr.json", reason))
    return VerifyReport(
        str(path), "voxels" if config.deep else "digests", False, 0, 0, 0, 0, 0, 0, 0, damaged, {}, 0, 0, 0.0
    )
