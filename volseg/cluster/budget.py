"""The budget of failures: when a run waits with new blocks, and when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volseg.cluster.error_classes import Scope
from volseg.errors import RunAbortedError
from volseg.text import counted

if TYPE_CHECKING:
    from volseg.cluster.attempt import Failure
    from volseg.cluster.policy import FailurePolicy

_WAY_OUT = "fix the cause, then rerun with --resume instead of --overwrite"


class FailureBudget:
    """Counts failures.

    Args:
        policy: what the run bears.
        hold: failed attempts in succession after which no new blocks start until one succeeds: a store that is down
            for a minute fails the blocks in flight, and not all others.
    """

    def __init__(self, policy: FailurePolicy, hold: int) -> None:
        self._policy, self._hold = policy, hold
        self._done = self._given_up = 0
        self._in_succession = 0
        self._failed_first: set[int] = set()

    @property
    def holds_new(self) -> bool:
        """Whether new blocks wait."""
        return self._in_succession >= self._hold

    def succeeded(self) -> None:
        """Count a block that is done."""
        self._done += 1
        self._in_succession = 0

    def failed(self, number: int, failure: Failure, *, gives_up: bool) -> None:
        """Count a failed attempt.

        Raises:
            RunAbortedError: it concerns the whole run, or the budget is spent.
        """
        if failure.scope is Scope.RUN:
            raise RunAbortedError(f"{failure.message} ({failure.kind}): the run ends{self._so_far}; {_WAY_OUT}")
        self._in_succession += 1
        self._given_up += gives_up
        if not self._done:
            self._failed_first.add(number)
        early, most = self._policy.early, self._policy.max_failed
        if len(self._failed_first) >= early:
            reason = f"each of the first {early} blocks failed"
        elif self._given_up > most:
            reason = f"{counted(self._given_up, 'block')} failed, more than the {most} of --max-failed"
        else:
            return
        raise RunAbortedError(
            f"{reason}, the last ({number}) because of: {failure.message}; the run ends{self._so_far}; {_WAY_OUT}"
        )

    @property
    def _so_far(self) -> str:
        return f" with {counted(self._done, 'block')} done" if self._done else ""
