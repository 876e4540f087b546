"""The state of a run, from its record and its journal alone."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from volseg.pipeline import EMPTY
from volseg.storage import (
    LACKING,
    MARKED,
    WAS_EMPTY,
    FailedBlock,
    JournalReader,
    is_running,
    journal_changed,
    open_target,
    read_failures,
    read_record,
)

if TYPE_CHECKING:
    from volseg.storage import TargetPath

State = Literal["complete", "running", "stopped"]


@dataclass(frozen=True)
class RunStatus:
    """State of a run.

    Attributes:
        target: path of the map.
        state: `complete` if no block is left, `running` while a driver holds the journal, else `stopped`.
        source: location of the volume.
        models: names of the networks.
        version: of volseg, which started the run.
        created: when it was started, ISO 8601.
        blocks: to compute or to skip as empty, without those outside the mask.
        outside: blocks outside the mask.
        done: blocks that have a mark, empty ones included.
        empty: of these, how many were empty.
        lacking: of these, how many read chunks which the source lacked.
        retried: of these, how many took more than one attempt.
        damaged: marks that cannot be read.
        coarser_left: blocks of coarser levels that are to be made.
        failed: blocks that were given up, and have no mark.
        kinds: blocks that each kind of worker computed.
        seconds_per_block: mean time of a computed block on its worker; None if there is none.
        seconds_since_mark: since the journal was last written; None if it never was.
    """

    target: str
    state: State
    source: str
    models: tuple[str, ...]
    version: str
    created: str
    blocks: int
    outside: int
    done: int
    empty: int
    lacking: int
    retried: int
    damaged: int
    coarser_left: int
    failed: tuple[FailedBlock, ...]
    kinds: dict[str, int]
    seconds_per_block: float | None
    seconds_since_mark: float | None

    @property
    def left(self) -> int:
        """Blocks without a mark."""
        return self.blocks - self.done

    def to_json(self) -> dict[str, Any]:
        """All fields, for a program."""
        return asdict(self) | {"left": self.left}


def run_status(path: TargetPath) -> RunStatus:
    """Read the state of a run; it may be running.

    Args:
        path: of its target.

    Raises:
        TargetError: there is no run, or its record cannot be read.
    """
    record, folder = read_record(path), open_target(path).journal
    running = is_running(folder)
    reader = JournalReader(folder, record.pyramid, EMPTY)
    reader.restore()
    found = reader.read()
    done, coarser, tally = found.finest(MARKED), found.coarser(), found.tally
    blocks, coarser_left = record.planned, record.planned_coarser - len(coarser)
    failures = read_failures(folder)
    changed = journal_changed(folder)
    return RunStatus(
        target=str(path),
        state="running" if running else "complete" if len(done) >= blocks and not coarser_left else "stopped",
        source=record.source.location,
        models=tuple(entry.name for entry in record.models),
        version=record.version,
        created=record.created,
        blocks=blocks,
        outside=record.grid.count - blocks,
        done=len(done),
        empty=found.count(WAS_EMPTY),
        lacking=found.count(LACKING),
        retried=tally.retried,
        damaged=found.damaged,
        coarser_left=coarser_left,
        failed=tuple(failures[number] for number in sorted(failures) if number not in done and number not in coarser),
        kinds=dict(tally.kinds),
        seconds_per_block=tally.seconds / tally.computed if tally.computed else None,
        seconds_since_mark=None if changed is None else max(0.0, time.time() - changed),
    )
