"""Failed attempts, in the driver: whether target and source are still there, and what is kept of blocks given up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from volseg.cluster import Failure
from volseg.errors import TargetError, TargetLostError
from volseg.prediction.sink import read_own_record
from volseg.storage import FailedBlock

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.cluster import Attempt, BlockTask
    from volseg.storage import FailureLog, Readable


@runtime_checkable
class _Confirmed(Protocol):
    def confirm(self) -> None: ...


@dataclass(frozen=True)
class FailureWatch:
    """Looks after each failed attempt whether the run can go on.

    Attributes:
        target: path of the map.
        digest: of the run's record.
        source: as the driver opened it.
        log: of the blocks that are given up.
    """

    target: Path
    digest: str
    source: Readable
    log: FailureLog

    def __call__(self, task: BlockTask, attempt: Attempt, given_up: bool) -> None:
        """Take a failed attempt.

        Raises:
            TargetLostError: the target is gone, or another run's.
            SourceLostError: the source is gone, or has changed.
        """
        self.confirm_target()
        # A server that is down is for the attempts to wait for.
        if "://" not in self.source.location and isinstance(self.source, _Confirmed):
            self.source.confirm()
        if given_up and isinstance(attempt.result, Failure):
            failure, now = attempt.result, datetime.now(UTC).isoformat(timespec="seconds")
            self.log.add(
                FailedBlock(
                    task.number, failure.kind, failure.message, task.attempt, attempt.worker, now, failure.traceback
                )
            )

    def confirm_target(self) -> None:
        """Refuse to go on if the target is gone, or another run's.

        Raises:
            TargetLostError: it is.
        """
        try:
            read_own_record(self.target, self.digest)
        except TargetLostError:
            raise TargetLostError(f"{self.target} was replaced by another run; this one ends") from None
        except TargetError as error:
            raise TargetLostError(f"{self.target} is gone or damaged while a run writes into it ({error})") from error
