"""Failed attempts, in the driver: whether target and source are still there, and what is kept of blocks given up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from volseg.cluster import take_failure
from volseg.errors import TargetError, TargetLostError
from volseg.prediction.sink import read_own_record

if TYPE_CHECKING:
    from volseg.cluster import Attempt, BlockTask
    from volseg.storage import FailureLog, Readable, TargetPath


@dataclass(frozen=True)
class FailureWatch:
    """Looks after each failed attempt whether the run can go on.

    Attributes:
        target: path of the map.
        digest: of the run's record.
        source: as the driver opened it.
        log: of the blocks that are given up.
    """

    target: TargetPath
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
        take_failure(task, attempt, given_up, self.source, self.log)

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
