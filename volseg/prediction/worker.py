"""What a worker does for a run: open its journey once, then do any block by number.

Only the number and a `RunRef` cross from the driver to a worker; the rest is read from the target's run record.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.inference import Engine, open_predictor
from volseg.inference.memory.malloc import release_heap
from volseg.pipeline import BlockPipeline, BlockReport, EnsembleMember, process_block
from volseg.prediction.sink import FencedSink, VolumeSink, _record_of
from volseg.storage import UNCERTAINTY, open_target, open_volume

if TYPE_CHECKING:
    from volseg.storage import RunRecord

_KEPT = 2
_opened: dict[RunRef, BlockPipeline] = {}
_opening = threading.Lock()


@dataclass(frozen=True, slots=True)
class RunRef:
    """Which run, in a few bytes.

    Attributes:
        target: path of the target, whose attributes hold the run record.
        digest: of that record.
        source: where this driver found the source.
        models: where it found the model files.
    """

    target: str
    digest: str
    source: str
    models: tuple[str, ...]


def compute_block(number: int, ticket: RunRef) -> BlockReport:
    """Do one block of a run, in whichever process this is called."""
    return process_block(number, pipeline_of(ticket))


def pipeline_of(ticket: RunRef) -> BlockPipeline:
    """The run's journey, opened on first use and kept: a worker serves one run at a time."""
    with _opening:
        if ticket not in _opened:
            while len(_opened) >= _KEPT:
                _opened.pop(next(iter(_opened)))
            _opened[ticket] = _open(ticket)
        return _opened[ticket]


def _open(ticket: RunRef) -> BlockPipeline:
    path = Path(ticket.target)
    record = _record_of(path, ticket.digest)
    release_heap()  # those that measuring left free, in pieces
    with_std = record.settings.uncertainty
    volumes = [open_target(path), *([open_target(path / UNCERTAINTY)] if with_std else [])]
    members = ensemble_of(record, ticket.models)
    sink = FencedSink(VolumeSink(tuple(volumes)), path, ticket.digest)
    return BlockPipeline(record.grid, members, open_volume(ticket.source), sink, with_std=with_std)


def ensemble_of(record: RunRecord, files: tuple[str, ...]) -> tuple[EnsembleMember, ...]:
    """The networks of a run, made ready in this process.

    Args:
        record: the run's.
        files: where its models are.
    """
    from volseg.models.model import clear_model_cache  # noqa: PLC0415 - the driver imports this module without torch

    engine, settings = engine_of(record), record.settings
    alone = len(record.models) == 1 and settings.orientations == "one" and not settings.uncertainty
    members = tuple(
        EnsembleMember(
            entry.tiling,
            entry.statistics,
            open_predictor(
                file,
                entry.digest,
                entry.tiling,
                replace(engine, batch=entry.batch, compiled=entry.compiled),
                settings.classes,
                as_bytes=alone,
            ),
        )
        for entry, file in zip(record.models, files, strict=True)
    )
    clear_model_cache()
    return members


def engine_of(record: RunRecord) -> Engine:
    """How a run's record says that networks are run, one tile at a time."""
    settings = record.settings
    return Engine(settings.device, settings.precision, 1, settings.threads, settings.orientations)
