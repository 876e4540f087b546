"""How far a run is: blocks, voxels a second and time left."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Anything that wants to know how far a run is."""

    def begin(self, total: int) -> None:
        """A run of so many blocks begins."""

    def advance(self, voxels: int, busy: float | None = None) -> None:
        """A block of so many voxels is done; `busy` is the share of the devices' time in the network so far."""

    def note(self, line: str) -> None:
        """Something the user should see: a failed attempt, a lost worker."""


class NullProgress:
    """Tells nobody."""

    def begin(self, total: int) -> None:
        """Say nothing."""

    def advance(self, voxels: int, busy: float | None = None) -> None:
        """Say nothing."""

    def note(self, line: str) -> None:
        """Say nothing."""
