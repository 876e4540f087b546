"""What a worker does for a run: open its journey once, then do any block by number.

Only the number and a `RunTicket` cross from the driver to a worker; the rest is read from the target's run record.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.errors import TargetError
from volseg.inference import Engine, open_predictor
from volseg.inference.heap import give_pages_back
from volseg.pipeline import BlockReport, Journey, Member, process_block
from volseg.storage import UNCERTAINTY, open_target, open_volume, read_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from volseg.blocks import Box
    from volseg.storage import RunRecord, Target

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
        models: where it found the model files.
    """

    target: str
    digest: str
    source: str
    models: tuple[str, ...]


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
    record = _record_of(path, ticket.digest)
    give_pages_back()  # those that measuring left free, in pieces
    spread = record.settings.uncertainty
    volumes = [open_target(path), *([open_target(path / UNCERTAINTY)] if spread else [])]
    members = members_of(record, ticket.models)
    sink = OwnVolumes(Volumes(tuple(volumes)), path, ticket.digest)
    return Journey(record.grid, members, open_volume(ticket.source), sink, spread=spread)


def _record_of(path: Path, digest: str) -> RunRecord:
    """A target's run record, if it is the one that a block was sent for."""
    record = read_record(path)
    if record.digest != digest:
        raise TargetError(
            f"{path} holds another run than the one that sent this block; use a path that is the same everywhere"
        )
    return record


def members_of(record: RunRecord, files: tuple[str, ...]) -> tuple[Member, ...]:
    """The networks of a run, made ready in this process.

    Args:
        record: the run's.
        files: where its models are.
    """
    from volseg.models.model import let_go_of_models  # noqa: PLC0415 - the driver imports this module without torch

    engine, settings = engine_of(record), record.settings
    alone = len(record.models) == 1 and settings.orientations == "one" and not settings.uncertainty
    members = tuple(
        Member(
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
    let_go_of_models()
    return members


@dataclass(frozen=True)
class Volumes:
    """The sink of a run: its probabilities, and their spread in a second volume where that is asked for."""

    targets: tuple[Target, ...]

    def write(self, box: Box, volumes: Sequence[NDArray[np.uint8]]) -> str:
        """Write each volume's (classes, z, y, x); returns one digest of all."""
        digests = [
            target.write(box, voxels if target.channels else voxels[0])
            for target, voxels in zip(self.targets, volumes, strict=True)
        ]
        return digests[0] if len(digests) == 1 else blake2b("".join(digests).encode(), digest_size=16).hexdigest()

    def clear(self, box: Box) -> None:
        """Delete the shards of a box in each volume."""
        for target in self.targets:
            target.clear(box)


@dataclass(frozen=True)
class OwnVolumes:
    """Volumes for as long as they are the run's: a block may outlive a run that was stopped and begun anew.

    Attributes:
        volumes: to write to.
        path: of the target.
        digest: of the run's record.
    """

    volumes: Volumes
    path: Path
    digest: str

    def write(self, box: Box, volumes: Sequence[NDArray[np.uint8]]) -> str:
        """As `Volumes.write`.

        Raises:
            TargetError: another run was begun here; or the store does not take the voxels.
        """
        _record_of(self.path, self.digest)
        return self.volumes.write(box, volumes)

    def clear(self, box: Box) -> None:
        """As `Volumes.clear`.

        Raises:
            TargetError: as `write`.
        """
        _record_of(self.path, self.digest)
        self.volumes.clear(box)


def engine_of(record: RunRecord) -> Engine:
    """How a run's record says that networks are run, one tile at a time."""
    settings = record.settings
    return Engine(settings.device, settings.precision, 1, settings.threads, settings.orientations)
