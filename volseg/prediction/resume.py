"""What is done of a run, and what may not differ when it is resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volseg.blocks import BlockSet
from volseg.errors import ResumeError
from volseg.pipeline import EMPTY
from volseg.storage import read_marks

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.storage import MaskEntry, RunRecord


def done_blocks(journal: Path) -> tuple[BlockSet, int]:
    """The blocks that have a mark in a journal, and how many of them were empty."""
    done, empty = BlockSet(), 0
    for mark in read_marks(journal):
        empty += mark.skipped == EMPTY and mark.block not in done
        done.add(mark.block)
    return done, empty


def refuse_if_different(recorded: RunRecord, requested: RunRecord, target: str) -> None:
    """Refuse to resume a run under other weights, settings, source or mask, or by a volseg that computes other bytes.

    Paths, versions and the time of creation may differ.

    Raises:
        ResumeError: names the first difference, what is recorded and what was requested.
    """
    for name in ("format", "numerics"):
        if getattr(recorded, name) != getattr(requested, name):
            raise ResumeError(
                f"{target} was started by volseg {recorded.version} with {name} {getattr(recorded, name)}; this is "
                f"volseg {requested.version} with {name} {getattr(requested, name)}: resume with the version that "
                "started it, or start again with --overwrite"
            )
    pairs: list[tuple[str, object, object]] = [
        ("source", recorded.source.identity, requested.source.identity),
        ("source shape", recorded.source.shape, requested.source.shape),
        ("voxel size", recorded.source.voxel_nm, requested.source.voxel_nm),
        ("translation", recorded.source.translation_nm, requested.source.translation_nm),
        ("model", [entry.digest for entry in recorded.models], [entry.digest for entry in requested.models]),
    ]
    for before, now in zip(recorded.models, requested.models, strict=False):
        pairs += [(name, getattr(before, name), getattr(now, name)) for name in ("halo", "tile", "statistics")]
    pairs += [
        (name, getattr(recorded.settings, name), getattr(requested.settings, name))
        for name in type(recorded.settings).model_fields
    ]
    # Last: how many blocks a mask leaves depends on the settings.
    pairs.append(("mask", _mask_text(recorded.mask), _mask_text(requested.mask)))
    for name, value, other in pairs:
        if value != other:
            values = f"{value} recorded, {other} requested" if len(f"{value}{other}") < 200 else "they differ"
            raise ResumeError(
                f"{target} was started with another {name} ({values}); repeat the run's own command with --resume, "
                "or start again with --overwrite"
            )


def _mask_text(mask: MaskEntry | None) -> str:
    return f"{mask.identity} of {mask.blocks} blocks" if mask else "none"
