"""What is done of a run, and what may not differ when it is resumed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from volseg.blocks import BlockSet
from volseg.errors import ResumeError, TargetError
from volseg.models import ModelHeader
from volseg.pipeline import EMPTY
from volseg.storage import LACKING, MARKED, NO_SHARDS, WAS_EMPTY, BlockStates, size_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from volseg.blocks import PyramidGrid
    from volseg.storage import MaskEntry, ModelEntry, Readable, RunRecord, SourceEntry, Target, TargetPath


@dataclass(frozen=True, slots=True)
class DoneBlocks:
    """The blocks that have a mark in a journal.

    Attributes:
        blocks: numbers of those of level 0.
        empty: how many of them were empty.
        sizes: bytes of each block's shards by number, for `ShardCheck`.
        damaged: marks that cannot be read; their blocks are not among the done ones.
        lacking: those that read chunks which the source lacked.
        coarser: numbers of those of coarser levels that were made after all that they are made of.
    """

    blocks: BlockSet
    empty: int
    sizes: NDArray[np.int64]
    damaged: int = 0
    lacking: BlockSet = field(default_factory=BlockSet)
    coarser: BlockSet = field(default_factory=BlockSet)

    def forget(self, numbers: Iterable[int]) -> None:
        """Take blocks for not done, whatever their marks say."""
        for number in numbers:
            for blocks in (self.blocks, self.lacking, self.coarser):
                blocks.discard(number)
            self.sizes[number] = NO_SHARDS


def done_blocks(journal: TargetPath, pyramid: PyramidGrid, *, accepts_missing: bool = True) -> DoneBlocks:
    """Read a journal; of several marks of a block the last counts.

    Args:
        journal: folder of the journal.
        pyramid: blocks of the run.
        accepts_missing: whether a block is done whose chunks the source lacked in part.
    """
    found, sizes = BlockStates(pyramid, EMPTY), size_table(pyramid.count)
    found.read(journal, sizes)
    sizes[found.settle()] = NO_SHARDS
    if not accepts_missing:
        undone = ((found.states & LACKING) > 0).nonzero()[0]
        undone = undone[undone < pyramid.base.count]
        found.states[undone] = 0
        sizes[undone] = NO_SHARDS
    return DoneBlocks(
        blocks=found.finest(MARKED),
        empty=found.count(WAS_EMPTY),
        sizes=sizes,
        damaged=found.damaged,
        lacking=found.finest(LACKING),
        coarser=found.coarser(),
    )


def refuse_edited_metadata(target: Target, record: RunRecord) -> None:
    """Refuse to write into an array that is not as the run's record says.

    Raises:
        TargetError: names what differs.
    """
    for name, expected in record.form(int(target.level)).items():
        if target.form[name] != expected:
            raise TargetError(
                f"{target.folder} has {name} {target.form[name]}, and its run {expected}: its metadata were edited; "
                "undo that, or start again with --overwrite"
            )


def refuse_if_different(recorded: RunRecord, requested: RunRecord, target: str) -> None:
    """Refuse to resume a run under other weights, settings, source or mask, or by a volseg that computes other bytes.

    Paths, versions and the time of creation may differ.

    Raises:
        ResumeError: names the first difference, what is recorded and what was requested.
    """
    for name in ("format", "numerics"):
        if getattr(recorded, name) != getattr(requested, name):
            raise ResumeError(
                f"{target} was started by volseg {recorded.version} with {name} {getattr(recorded, name)}; this is "
                f"volseg {requested.version} with {name} {getattr(requested, name)}: resume with the version that "
                "started it, or start again with --overwrite"
            )
    _refuse_other("source", recorded.source, requested.source, target)
    _refuse_other_models(recorded, requested.models, target)
    pairs: list[tuple[str, object, object]] = [
        ("voxel size", recorded.source.voxel_nm, requested.source.voxel_nm),
        ("translation", recorded.source.translation_nm, requested.source.translation_nm),
    ]
    for before, now in zip(recorded.models, requested.models, strict=False):
        pairs += [(name, getattr(before, name), getattr(now, name)) for name in ("halo", "tile", "statistics")]
    pairs += [
        (name, getattr(recorded.settings, name), getattr(requested.settings, name))
        for name in type(recorded.settings).model_fields
    ]
    for name, value, other in pairs:
        if value != other:
            is_short = len(f"{value}{other}") < 200
            raise _error(name, f"{value} recorded, {other} requested" if is_short else "they differ", target)
    # Last: how many blocks a mask leaves depends on the settings.
    _refuse_other("mask", recorded.mask, requested.mask, target)


def refuse_other_inputs(recorded: RunRecord, volume: Readable, models: Sequence[ModelHeader], target: str) -> None:
    """Refuse to resume with another source or other models, as far as their metadata tell.

    Raises:
        ResumeError: names what is recorded and what was requested.
    """
    if recorded.source.shape != volume.shape:
        was, now = (f"{v.location} of {v.shape}" for v in (recorded.source, volume))
        raise _error("source", f"{was} recorded, {now} requested", target)
    _refuse_other_models(recorded, models, target)


def _refuse_other_models(recorded: RunRecord, models: Sequence[ModelHeader | ModelEntry], target: str) -> None:
    if [entry.digest for entry in recorded.models] != [model.digest for model in models]:
        was = ", ".join(entry.location for entry in recorded.models)
        now = ", ".join(model.path if isinstance(model, ModelHeader) else model.location for model in models)
        raise _error("model", _locations(was, now), target)


def _refuse_other(
    kind: str, was: SourceEntry | MaskEntry | None, now: SourceEntry | MaskEntry | None, target: str
) -> None:
    """Refuse another volume; where it lies does not matter."""
    identities = [volume and (volume.shape, volume.identity, getattr(volume, "blocks", 0)) for volume in (was, now)]
    if identities[0] != identities[1]:
        locations = (volume.location if volume else "none" for volume in (was, now))
        raise _error(kind, _locations(*locations), target)


def _locations(was: str, now: str) -> str:
    return f"{now} has changed since" if was == now else f"{was} recorded, {now} requested"


def _error(what: str, difference: str, target: str) -> ResumeError:
    return ResumeError(
        f"{target} was started with another {what} ({difference}); repeat the run's own command with --resume, or "
        "start again with --overwrite"
    )
