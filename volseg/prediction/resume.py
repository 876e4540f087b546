"""What is done of a run that is resumed, and what may not differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volseg.blocks import BlockSet
from volseg.errors import ResumeError
from volseg.pipeline import EMPTY
from volseg.storage import read_marks

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.storage.run_record import MaskEntry, RunRecord


def done_blocks(folder: Path) -> tuple[BlockSet, int]:
    """The blocks that have a mark in a journal, and how many of them were found empty."""
    done, empty = BlockSet(), 0
    for mark in read_marks(folder):
        empty += mark.skipped == EMPTY and mark.block not in done
        done.add(mark.block)
    return done, empty


def refuse_if_different(recorded: RunRecord, asked: RunRecord, target: str) -> None:
    """Refuse to go on with a run under other weights, settings, source or mask.

    Where a file lies and when the record was made may differ; the voxels, weights and settings may not.

    Raises:
        ResumeError: names the first difference, what was recorded and what was asked for.
    """
    pairs: list[tuple[str, object, object]] = [
        ("source", recorded.source.identity, asked.source.identity),
        ("source shape", recorded.source.shape, asked.source.shape),
        ("model", [each.digest for each in recorded.models], [each.digest for each in asked.models]),
        ("volseg version", recorded.version, asked.version),
    ]
    for was_model, model in zip(recorded.models, asked.models, strict=False):
        pairs += [(name, getattr(was_model, name), getattr(model, name)) for name in ("halo", "tile", "statistics")]
    pairs += [
        (name, getattr(recorded.settings, name), getattr(asked.settings, name))
        for name in type(recorded.settings).model_fields
    ]
    # Last: how many blocks a mask leaves depends on the settings.
    pairs.append(("mask", _told(recorded.mask), _told(asked.mask)))
    for name, was, now in pairs:
        if was != now:
            shown = f"{was} recorded, {now} asked for" if len(f"{was}{now}") < 200 else "they differ"
            raise ResumeError(
                f"{target} was begun with another {name} ({shown}); repeat the run's own command with --resume, "
                "or start again with --overwrite"
            )


def _told(mask: MaskEntry | None) -> str:
    return f"{mask.identity} of {mask.blocks} blocks" if mask else "none"
