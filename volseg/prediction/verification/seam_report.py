"""What a verification says of seams: of a run's map by its record and, if asked, by computing; of others by the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volseg.cluster import SerialExecutor, connect, refuse_other_versions
from volseg.errors import GridError
from volseg.prediction.verification.one_piece import MAX_ERROR, OnePiece, compare_faces
from volseg.prediction.verification.seams import open_map, score_map
from volseg.prediction.worker import RunRef, restored_heap
from volseg.storage import DEFAULT_OPTIONS, ReadOptions, VolumeRef
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volseg.cluster import Progress
    from volseg.config import VerifyConfig
    from volseg.prediction.verification.seams import SeamScores
    from volseg.storage import RunRecord, TargetPath


def seams_of_run(config: VerifyConfig, path: TargetPath, record: RunRecord, progress: Progress) -> dict[str, Any]:
    """Look for seams in the map of a run; with `--seams`, compute places across faces too.

    What was computed decides: steps that one piece has as well are those of the source.
    """
    options = ReadOptions(channel="0") if len(record.settings.classes) > 1 else DEFAULT_OPTIONS
    scores = score_map(VolumeRef(str(path), options), record.settings.block, SerialExecutor(), progress)
    computed: OnePiece | str | None = None
    if config.seams:
        models = config.model or tuple(entry.location for entry in record.models)
        source = VolumeRef(config.source or record.source.location, record.source.options, record.source.resampling)
        reference = RunRef(str(path), record.digest, source, models)
        with (
            connect(config.cluster, config.workers, tls=config.tls, note=progress.note) as executor,
            restored_heap(executor),
        ):
            if config.cluster != "serial":
                refuse_other_versions(executor, progress)
            computed = compare_faces(record, reference, executor, progress)
    return _as_json(scores, computed)


def seams_of_other(config: VerifyConfig, progress: Progress) -> dict[str, Any]:
    """Look for seams in a map of another tool.

    Raises:
        SourceError: it cannot be read.
        GridError: it has no faces of such blocks.
    """
    volume = VolumeRef(config.target)
    shape = open_map(volume).shape
    if config.block is not None and all(b >= n for b, n in zip(config.block, shape, strict=True)):
        raise GridError(f"--block {config.block} has no faces in the map, whose shape is {shape}; give smaller blocks")
    return _as_json(score_map(volume, config.block, SerialExecutor(), progress), None)


def _as_json(scores: SeamScores, computed: OnePiece | str | None) -> dict[str, Any]:
    is_computed = isinstance(computed, OnePiece)
    return {
        "seamed": computed.seamed if isinstance(computed, OnePiece) else scores.is_seamed,
        "statistic": scores.to_json(),
        "computed": computed.to_json() if isinstance(computed, OnePiece) else None,
        "not_computed": None if is_computed else computed,
    }


def seam_lines(seams: dict[str, Any] | None) -> Iterator[str]:
    """What was found, for people."""
    if seams is None:
        return
    statistic, computed = seams["statistic"], seams["computed"]
    for face in statistic["faces"]:
        if face["faces"]:
            across = " and ".join("zyx"[axis] for axis in face["axes"])
            period = ",".join(map(str, face["period"]))
            how = "" if statistic["known"] else ", searched"
            yield (
                f"seams: steps at faces across {across} (every {period} voxels{how}): score {face['score']:.1f}, seams "
                f"from {face['threshold']:.1f}; excess {face['excess']:.3f}, {counted(face['faces'], 'face')}"
            )
    if not statistic["measured"]:
        yield "seams: no face could be measured: the map is too small, holds next to nothing, or is one block"
    if computed is not None:
        yield (
            f"seams: {counted(computed['places'], 'place')} computed in one piece: {computed['off']:.2%} of the voxels "
            f"at faces off by more than {MAX_ERROR} levels, {computed['unequal']:.3%} of all unequal, by at most "
            f"{computed['max_error']} ({computed['promise']})"
        )
    if seams["not_computed"]:
        yield f"seams: nothing was computed in one piece: {seams['not_computed']}"
