"""What a worker does for a run: open its journey once, then do any block by number.

Only the number and a `RunTicket` cross from the driver to a worker; the rest is read from the target's run record.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.errors import TargetError
from volseg.inference import Engine, open_predictor
from volseg.pipeline import BlockReport, Journey, process_block
from volseg.storage import open_target, open_volume, read_record

if TYPE_CHECKING:
    from volseg.storage import RunRecord

_KEPT = 2
_opened: dict[RunTicket, Journey] = {}
_opening = threading.Lock()


@dataclass(frozen=True, slots=True)
class RunTicket:
    """Which run, in a few bytes.

    Attributes:
        target: path of the target, whose attributes hold the run record.
        digest: of that record.
        source: where this driver found the source.
        model: where it found the model file.
    """

    target: str
    digest: str
    source: str
    model: str


def compute_block(number: int, ticket: RunTicket) -> BlockReport:
    """Do one block of a run, in whichever process this is called."""
    return process_block(number, journey_of(ticket))


def journey_of(ticket: RunTicket) -> Journey:
    """The run's journey, opened on first use and kept: a worker serves one run at a time."""
    with _opening:
        if ticket not in _opened:
            while len(_opened) >= _KEPT:
                _opened.pop(next(iter(_opened)))
            _opened[ticket] = _open(ticket)
        return _opened[ticket]


def _open(ticket: RunTicket) -> Journey:
    path = Path(ticket.target)
    record = read_record(path)
    if record.digest != ticket.digest:
        raise TargetError(
            f"{path} holds another run than the one that sent this block; use a path that is the same everywhere"
        )
    return Journey(
        grid=record.grid,
        tiling=record.tiling,
        statistics=record.settings.statistics,
        source=open_volume(ticket.source),
        predict=open_predictor(ticket.model, record.model.digest, record.tiling, engine_of(record)),
        sink=open_target(path),
    )


def engine_of(record: RunRecord) -> Engine:
    """How a run's record says that the network is run."""
    settings = record.settings
    return Engine(settings.device, settings.precision, settings.batch, settings.threads)
