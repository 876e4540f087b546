"""Progress of a run, as an interface."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of a run."""

    def begin(self, total: int) -> None:
        """A run of so many blocks begins."""

    def advance(self, voxels: int, busy: float | None = None) -> None:
        """A block of so many voxels is done; `busy` is the mean utilisation of the devices so far."""

    def note(self, line: str) -> None:
        """A line for the user: a failed attempt, a lost worker."""

    def stage(self, name: str) -> None:
        """What is waited for from here on, such as workers; ends with the next stage or the first block."""


class NullProgress:
    """Discards the progress."""

    def begin(self, total: int) -> None:
        """Do nothing."""

    def advance(self, voxels: int, busy: float | None = None) -> None:
        """Do nothing."""

    def note(self, line: str) -> None:
        """Do nothing."""

    def stage(self, name: str) -> None:
        """Do nothing."""
