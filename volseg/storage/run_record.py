"""The run record: all that the bytes of a run depend on, written into its target before the first block."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from volseg.blocks import BlockGrid, Level, PyramidGrid, common_stride, pyramid_levels
from volseg.errors import TargetError
from volseg.ops import OutputResampling
from volseg.storage.checked_record import CHECKSUM, CheckedRecord, reason_of
from volseg.storage.journal import journal_runs
from volseg.storage.metadata_file import read_metadata
from volseg.storage.place import Place
from volseg.storage.record_entries import MaskEntry, ModelEntry, Settings, SourceEntry
from volseg.text import parse_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from volseg.blocks import Zyx
    from volseg.storage.object_path import TargetPath

_FIRST_WITH_CHECKSUM = 3
FORMAT = 5
"""Of the record's fields; raised if a change keeps older readers from reading it."""
NUMERICS = 2
"""Of the bytes that a run writes under one record; raised with any change of them."""


class RecordError(TargetError):
    """A run record that is missing, or was changed."""


class RunRecord(CheckedRecord):
    """Everything that the bytes of a run depend on."""

    format: int
    """`FORMAT` of the volseg that wrote it."""
    numerics: int
    """`NUMERICS` of the volseg that wrote it."""
    source: SourceEntry
    models: tuple[ModelEntry, ...]
    """The networks whose estimates are averaged, in this order."""
    settings: Settings
    version: str
    """Of volseg."""
    torch: str
    """Version of the workers' torch."""
    created: str
    """UTC, ISO 8601."""
    mask: MaskEntry | None = None
    """Blocks outside it are not part of the run."""

    @property
    def shape(self) -> Zyx:
        """Voxels of the map."""
        return self.settings.map.shape if self.settings.map else self.source.shape

    @property
    def output(self) -> OutputResampling | None:
        """From the networks' voxels to those of the map; None if they are the same."""
        written = self.settings.map
        return OutputResampling(written.resampling, self.source.shape, written.shape) if written else None

    @property
    def grid(self) -> BlockGrid:
        """The run's blocks, in voxels of the map."""
        return BlockGrid(self.shape, self.settings.block, self.settings.region)

    @property
    def network_grid(self) -> BlockGrid:
        """The run's blocks, in the networks' voxels."""
        stride = common_stride([entry.footprint for entry in self.models])
        return self.grid if self.output is None else self.output.network_grid(self.grid, stride)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The coarser levels."""
        return pyramid_levels(self.shape, self.settings.shard, self.settings.chunk, self.settings.levels)

    @property
    def pyramid(self) -> PyramidGrid:
        """The blocks of all levels."""
        return PyramidGrid(self.grid, self.levels)

    @property
    def planned(self) -> int:
        """Blocks of the run, without those outside its mask."""
        return self.mask.blocks if self.mask else self.grid.count

    @property
    def planned_coarser(self) -> int:
        """Blocks of coarser levels, without those that are made of blocks outside the mask only."""
        return self.mask.coarser_blocks if self.mask else self.pyramid.count - self.grid.count

    @property
    def place(self) -> Place:
        """Voxel size and translation of the map."""
        source, written = self.source, self.settings.map
        if written is not None:
            return Place.of_nm(written.voxel_nm, written.translation_nm)
        if source.voxel_nm is None and source.place_without_unit is not None:
            return Place(*source.place_without_unit)
        return Place.of_nm(source.voxel_nm, source.translation_nm)

    def form(self, level: int = 0) -> dict[str, Any]:
        """Shape, type, shards and chunks of the array of a level, with a channel axis for several classes."""
        settings, classes = self.settings, len(self.settings.classes)
        sizes = (self.shape, settings.shard, settings.chunk)
        if level:
            sizes = (self.levels[level - 1].shape, self.levels[level - 1].shard, self.levels[level - 1].chunk)
        channels, ones = ((classes,), (1,)) if classes > 1 else ((), ())
        shape, shard, chunk = sizes
        return {"shape": channels + shape, "type": "uint8", "shards": ones + shard, "chunks": ones + chunk}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """The record of Zarr attributes; the first formats had no checksum.

        Raises:
            ValueError: they are no record, or were changed since they were written.
        """
        values = dict(attributes)
        if CHECKSUM in values or values.get("format", 1) >= _FIRST_WITH_CHECKSUM:
            return super().from_attributes(values)
        return cls.model_validate_json(json.dumps(values))


def is_target(path: TargetPath) -> bool:
    """Whether a path is the target of a run."""
    try:
        return "volseg" in parse_object(read_metadata(path / "zarr.json"))["attributes"]
    except (OSError, KeyError, TypeError, ValueError):
        return False


def read_record(path: TargetPath) -> RunRecord:
    """Read the run record of a target.

    Raises:
        RecordError: the path is not a target, or the record was changed, or is that of another map.
        TargetError: another version of volseg wrote it.
    """
    record = _parse_record(path)
    runs = journal_runs(path / "0" / ".volseg")
    others = runs - {record.digest}
    if others and record.format == FORMAT:  # the digest of a record depends on its format
        journal = "has marks" if len(others) < len(runs) else "is"
        raise RecordError(
            f"the run record in {path} is that of another map, or its journal: that {journal} of the run "
            f"{min(others)}, and the record is {record.digest}; put the map's own zarr.json or journal back, or start "
            "again with --overwrite"
        )
    return record


def _parse_record(path: TargetPath) -> RunRecord:
    try:
        attributes = parse_object(read_metadata(path / "zarr.json"))["attributes"]
        return RunRecord.from_attributes(attributes["volseg"])
    except (OSError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(
            f"{path} has no run record; name the target of a `volseg predict` (levels of another image are compared "
            f"with their marks by `volseg pyramid {path} --resume --check`, copies by `volseg convert --resume`)"
        ) from error
    except ValidationError as error:
        raise TargetError(
            f"the run record in {path} cannot be read ({reason_of(error)}); "
            "use the version of volseg that wrote it, or start again with --overwrite"
        ) from error
    except ValueError as error:
        raise RecordError(
            f"the run record in {path} cannot be read: {error}; undo that, or start again with --overwrite"
        ) from error
