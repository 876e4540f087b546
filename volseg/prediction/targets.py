"""The target of a run: created or taken over, and left without half-written shards."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING

from volseg.blocks import Tiling
from volseg.errors import TargetError
from volseg.plots.curves import plot_halo_curve
from volseg.prediction.autotune.halo import halo_lines
from volseg.prediction.resume import refuse_edited_metadata
from volseg.storage import journal_folder, lock_part, new_target, open_pyramid, open_target, parts_running, read_record

if TYPE_CHECKING:
    from contextlib import ExitStack

    from volseg.blocks import Part
    from volseg.cluster import Progress
    from volseg.prediction.prepare import RunSpec
    from volseg.storage import Pyramid, RunRecord, TargetPath


def create_own(spec: RunSpec, record: RunRecord, owned: ExitStack, progress: Progress, part: Part | None) -> None:
    """Create the target, and take its lock."""
    new = new_target(spec.target, record, spec.map_place, overwrite=spec.overwrite)
    if part is None:
        owned.enter_context(new)
    else:
        with new:
            pass
        owned.enter_context(lock_part(journal_folder(spec.target), part))
    _save_halo_curves(spec, record, progress)


def _save_halo_curves(spec: RunSpec, record: RunRecord, progress: Progress) -> None:
    """Show the measurements of each measured halo, as a table and as a picture in the target."""
    for number, entry in enumerate(record.models):
        if not entry.halo_curve:
            continue
        progress.note("\n".join(halo_lines(entry)))
        picture = open_target(spec.target).journal / f"halo-{number}.png"
        picture.parent.mkdir(exist_ok=True)
        drawn = BytesIO()
        costs = [Tiling(entry.footprint, entry.tile, point.halo).overhead for point in entry.halo_curve]
        rows = [(p.halo, p.max_error, p.fraction, cost) for p, cost in zip(entry.halo_curve, costs, strict=True)]
        plot_halo_curve(drawn, rows, entry.halo, title=f"halo of {entry.name}")
        picture.write_bytes(drawn.getvalue())
        progress.note(f"the curve is drawn in {picture}")


def take_over(spec: RunSpec, record: RunRecord) -> Pyramid:
    """The volumes of a run, to write into, with the journal's lock held.

    Raises:
        TargetError: the target is another run's.
    """
    path = spec.target
    if read_record(path).digest != record.digest:
        raise TargetError(f"{path} was replaced by another run before this one began; rerun it elsewhere")
    pyramid = open_pyramid(path, record)
    for target in pyramid.targets:
        refuse_edited_metadata(target, record)
        if _is_alone(path):
            target.remove_partials()
    return pyramid


def _is_alone(path: TargetPath) -> bool:
    """Whether no driver of another part writes into the target whose lock is held."""
    return len(parts_running(journal_folder(path))) <= 1


def remove_partials(pyramid: Pyramid, spec: RunSpec, record: RunRecord) -> None:
    """Delete half-written shards at the end, unless the target is another run's by then."""
    with suppress(TargetError):
        if read_record(spec.target).digest == record.digest and _is_alone(spec.target):
            for target in pyramid.targets:
                target.remove_partials()
