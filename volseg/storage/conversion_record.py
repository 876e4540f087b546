"""The conversion record: all that the bytes of a conversion depend on."""

from __future__ import annotations

from volseg.blocks import BlockGrid, Box, PyramidGrid, Zyx, ZyxFloat, pyramid_levels
from volseg.config.base import FrozenModel
from volseg.errors import ResumeError
from volseg.ops import Resampling, Rescale
from volseg.storage.checked_record import CheckedRecord
from volseg.storage.place import Place
from volseg.storage.record_entries import SourceEntry

CONVERSION_FORMAT = 1
"""Of the record's fields."""
CONVERSION_NUMERICS = 1
"""Of the bytes that a conversion writes under one record; raised with any change of them."""
CONVERSION_KEY = "volseg_conversion"
"""Name of the record among the attributes of a volume."""


class OutputEntry(FrozenModel):
    """The volume that is written."""

    format: str
    """Name of its writer, such as `ome-zarr`."""
    dataset: str = ""
    """Name of the dataset in an HDF5 file."""
    shape: Zyx
    dtype: str
    limits: tuple[float, float] | None
    """Values of the source that become the smallest and the largest of the type; None if the values are kept."""
    shard: Zyx | None
    """Unit of storage; None if each chunk is one."""
    chunk: Zyx
    block: Zyx
    """Voxels that one task writes."""
    origin: Zyx = (0, 0, 0)
    """Position of the first voxel in the stored array."""
    scale: ZyxFloat
    translation: ZyxFloat
    is_nm: bool
    levels: tuple[Zyx, ...] = ()
    """Factors of the coarser levels, each to the next finer one."""

    @property
    def place(self) -> Place:
        """Voxel size and translation."""
        return Place(self.scale, self.translation, self.is_nm)

    @property
    def grid(self) -> BlockGrid:
        """The blocks, in voxels of the stored array."""
        box = Box.of_shape(self.shape)
        region = box.relative_to((-self.origin[0], -self.origin[1], -self.origin[2]))
        return BlockGrid(region.stop, self.block, region)

    @property
    def pyramid(self) -> PyramidGrid:
        """The blocks of all levels."""
        return PyramidGrid(self.grid, pyramid_levels(self.shape, self.shard or self.chunk, self.chunk, self.levels))


class ConversionRecord(CheckedRecord):
    """Everything that the bytes of a conversion depend on."""

    format: int = CONVERSION_FORMAT
    numerics: int = CONVERSION_NUMERICS
    source: SourceEntry
    roi: Box
    """Part of the source that is converted."""
    output: OutputEntry
    resampling: Resampling | None = None
    """Of that part to the voxels of the output; None if they are the same."""
    version: str
    """Of volseg."""

    @property
    def rescale(self) -> Rescale:
        """How voxels change their type."""
        return Rescale(self.source.dtype, self.output.dtype, self.output.limits)

    def source_box(self, box: Box) -> Box:
        """The voxels of the source, or of its resampled part, of a box of the stored array."""
        first = (0, 0, 0) if self.resampling else self.roi.start
        shift = [origin - start for origin, start in zip(self.output.origin, first, strict=True)]
        return box.relative_to((shift[0], shift[1], shift[2]))


def refuse_other_conversion(recorded: ConversionRecord, requested: ConversionRecord, target: str) -> None:
    """Refuse to resume a conversion under other options or of another source; a source that was moved is the same.

    Raises:
        ResumeError: names the first difference, what is recorded and what was requested.
    """
    pairs: list[tuple[str, object, object]] = [
        (name, getattr(recorded, name), getattr(requested, name)) for name in ("format", "numerics")
    ]
    was, now = recorded.source, requested.source
    pairs += [(f"source {name}", getattr(was, name), getattr(now, name)) for name in ("shape", "dtype", "options")]
    is_same_place = was.location == now.location
    identities = [(entry.identity, entry.marks if is_same_place else None) for entry in (was, now)]
    if identities[0] != identities[1]:
        where = f"{now.location} has changed since" if is_same_place else f"{was.location} recorded"
        raise _error("source", where, target)
    pairs += [("voxel size", was.voxel_nm, now.voxel_nm), ("region", recorded.roi, requested.roi)]
    pairs += [("resampling", recorded.resampling, requested.resampling)]
    pairs += [
        (name, getattr(recorded.output, name), getattr(requested.output, name)) for name in OutputEntry.model_fields
    ]
    for name, value, other in pairs:
        if value != other:
            raise _error(name, f"{value} recorded, {other} requested", target)


def _error(what: str, difference: str, target: str) -> ResumeError:
    return ResumeError(
        f"the conversion of {target} was started with another {what} ({difference}); repeat its own command with "
        "--resume, or start again with --overwrite"
    )
