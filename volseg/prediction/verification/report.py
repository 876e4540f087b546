"""What a verification finds: faults by their kind, counted, with some examples of each."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from volseg.cluster import NullProgress, Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

EXAMPLES = 100
"""Faults of each kind that are named; all are counted."""

DAMAGE = {
    "record": "the run record was changed",
    "metadata": "metadata other than the run's",
    "journal": "marks cannot be read",
    "statistics": "normalisation constants are missing or damaged",
    "census": "the census of the source's chunks is missing or damaged",
    "missing": "shards are missing",
    "unreadable": "shards cannot be read or decoded",
    "size": "shards have another size than was marked",
    "digest": "shards have other bytes than were marked",
    "voxels": "shards decode to other voxels than were marked",
    "stale": "shards where the run wrote none",
}
"""Kinds of damage: the map, or what is needed to go on with it, is not as its run left it."""
WARNINGS = {
    "stray": "files that are not of the run",
    "half_written": "shards or files that a dead process left half-written",
    "journal": "marks cannot be read, which others replace",
}
"""Kinds of what no reader of the map sees."""


@dataclass(frozen=True)
class Fault:
    """An example of a fault.

    Attributes:
        path: of a file in the target.
        reason: what is wrong, if its kind does not say it.
        block: number of the block; None if it is not that of one.
    """

    path: str
    reason: str = ""
    block: int | None = None


@dataclass
class FaultGroup:
    """All faults of a kind.

    Attributes:
        count: of them.
        examples: the first ones.
    """

    count: int = 0
    examples: list[Fault] = field(default_factory=list)


class Faults(dict[str, FaultGroup]):
    """Faults by their kind."""

    def note(self, kind: str, *faults: Fault, count: int | None = None) -> None:
        """Add faults of a kind; `count` if there are more than are given."""
        group = self.setdefault(kind, FaultGroup())
        group.count += len(faults) if count is None else count
        group.examples += faults[: EXAMPLES - len(group.examples)]

    def merge(self, others: Mapping[str, FaultGroup]) -> None:
        """Add those of another part."""
        for kind, group in others.items():
            self.note(kind, *group.examples, count=group.count)

    def without(self, kinds: Iterable[str]) -> Faults:
        """Those of other kinds."""
        left, dropped = Faults(), set(kinds)
        left.merge({kind: group for kind, group in self.items() if kind not in dropped})
        return left


@dataclass(frozen=True)
class Repair:
    """What a repair did.

    Attributes:
        blocks: computed again.
        equal: of these, how many have the voxels that were marked before; the others had no mark, or were computed by
            another kind of worker or version of torch.
        failed: block numbers with the reason of each.
        metadata: files that were put back.
        deleted: shards and half-written files that were deleted.
    """

    blocks: int
    equal: int
    failed: dict[int, str]
    metadata: tuple[str, ...]
    deleted: int


@dataclass(frozen=True)
class VerifyReport:
    """Result of a verification; after a repair, of what it left.

    Attributes:
        target: path of the map.
        compared: the digests of the shards' files, or the voxels too; nothing of a map of another tool.
        running: whether a run was writing meanwhile.
        blocks: that the run computes, without those outside its mask.
        done: of these, how many are marked.
        empty: of these, how many were empty and have no shard.
        checked: done blocks that were compared in this start.
        checked_before: done blocks that an interrupted verification found sound, and that were not read again.
        unmarked: shards of blocks that are not done.
        lacking: done blocks that read chunks which nothing tells to have been missing from the start.
        damaged: by kind.
        warnings: by kind.
        bytes: read from shards.
        voxel_bytes: decoded.
        seconds: of the comparison.
        repaired: what was repaired; None without a repair.
        seams: what was found across block faces; None if they were not looked at.
    """

    target: str
    compared: Literal["digests", "voxels", "nothing"]
    running: bool
    blocks: int
    done: int
    empty: int
    checked: int
    checked_before: int
    unmarked: int
    lacking: int
    damaged: dict[str, FaultGroup]
    warnings: dict[str, FaultGroup]
    bytes: int
    voxel_bytes: int
    seconds: float
    repaired: Repair | None = None
    seams: dict[str, Any] | None = None

    @property
    def seamed(self) -> bool:
        """Whether seams were found."""
        return self.seams is not None and bool(self.seams["seamed"])

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged

    @property
    def complete(self) -> bool:
        """Whether all blocks are done, of a source that was whole."""
        return self.done >= self.blocks and not self.lacking

    def to_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return {"sound": self.sound, "complete": self.complete, "seamed": self.seamed} | asdict(self)


class VerifyProgress(Progress, Protocol):
    """Receives the progress of a verification, and of the run that repairs."""

    def compared(self, blocks: int, total: int, size: int) -> None:
        """So many of all blocks are compared, and so many bytes were read."""


class NullVerifyProgress(NullProgress):
    """Discards the progress."""

    def compared(self, blocks: int, total: int, size: int) -> None:
        """Do nothing."""
