"""Chunks that the source of a run lacks: `ChunkRule`, from its record or from a census before the first block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volseg.blocks import Box
from volseg.storage import (
    CheckedSource,
    Chunked,
    ChunkRule,
    ResampledVolume,
    census_to_take,
    open_target,
    recorded_census,
    rule_of,
    stored_volume,
)

if TYPE_CHECKING:
    from volseg.cluster import Progress
    from volseg.prediction.prepare import RunSpec
    from volseg.storage import RunRecord

__all__ = ["CheckedSource", "ChunkRule", "census_fields", "chunk_rule"]


def chunk_rule(spec: RunSpec, recorded: RunRecord | None, progress: Progress) -> ChunkRule:
    """Count the chunks that the source lacks, before anything is read, and say how many.

    Args:
        spec: the run.
        recorded: the record of the run to resume, whose census counts; None for a new run.
        progress: receives a note.

    Raises:
        SourceError: chunks are missing and to be refused, or they cannot be listed.
        ResumeError: the census of the run to resume is lost, and the source lacks other chunks.
    """
    volume = stored_volume(spec.volume)
    if not isinstance(volume, Chunked):
        return ChunkRule()
    # The region with its halo, inside the volume.
    box = spec.plan.network_grid.region.grow(spec.plan.halo).intersection(Box.of_shape(spec.volume.shape))
    if isinstance(spec.volume, ResampledVolume):
        box = spec.volume.source_box(box)
    if recorded is not None:
        census = recorded_census(volume, recorded.source, box, open_target(spec.target).journal)
        return rule_of(volume, census, spec.missing_chunks, lambda line: None)
    progress.stage("looking for missing chunks")
    return rule_of(volume, census_to_take(volume, box), spec.missing_chunks, progress.note)


def census_fields(rule: ChunkRule) -> dict[str, Any]:
    """What the run record says of the census."""
    return rule.fields
