"""The worker's side of a conversion: open source and target once, then copy any block by number.

Only the number and a `ConversionRef` cross from the driver to a worker; all else is read from the conversion's record.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from volseg.errors import BlockError, TargetError, TargetLostError
from volseg.malloc import release_heap, retain_heap
from volseg.pipeline import EMPTY, BlockReport
from volseg.storage import (
    REPEATS,
    CheckedSource,
    ChunkRule,
    MissingChunks,
    ObjectPath,
    ResampledVolume,
    lease_watch,
    read_census,
    target_path,
    voxel_digest,
)
from volseg.storage.unfinished import confirm_owner, unfinished, unfinished_volume, work_folder
from volseg.storage.writers import FORMATS
from volseg.storage.writers.ome_zarr import OmeZarrWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from volseg.blocks import Box
    from volseg.conversion.source import SourceRef
    from volseg.ops import Rescale
    from volseg.storage import Pyramid, Readable, TargetPath
    from volseg.storage.conversion_record import ConversionRecord, OutputEntry
    from volseg.storage.writers.base import Writer

_CACHED = 2
_open: dict[ConversionRef, OpenConversion] = {}
_opening = threading.Lock()


@dataclass(frozen=True, slots=True)
class ConversionRef:
    """Reference to a conversion, in a few bytes.

    Attributes:
        target: path of the volume in the end; the record lies beside it.
        digest: of that record.
        source: the volume, as the driver opened it.
        missing_chunks: what the user states of chunks that the source lacks.
    """

    target: str
    digest: str
    source: SourceRef
    missing_chunks: MissingChunks = None


@dataclass(frozen=True)
class OpenConversion:
    """All that a worker needs to copy any block."""

    record: ConversionRecord
    volume: Readable
    rule: ChunkRule
    writer: Writer


def convert_block(number: int, reference: ConversionRef) -> BlockReport:
    """Copy one block, and read back what was written; repeating it gives the same bytes.

    Raises:
        SourceError: a read failed, or chunks are missing that must not be.
        BlockError: a value does not fit the type.
        TargetError: a write failed, or other voxels are read back.
    """
    started = time.perf_counter()
    conversion = conversion_of(reference)
    record, writer = conversion.record, conversion.writer
    check = partial(confirm_owner, target_path(reference.target), reference.digest)
    if number >= record.output.grid.count and writer.pyramid is not None:
        return replace(make_coarser(number, writer.pyramid, check), repeats=REPEATS.take())
    box = record.output.grid.box(number)
    source = CheckedSource(conversion.volume, conversion.rule)
    read = source.read if record.resampling is None else ResampledVolume(source, record.resampling, record.roi).read
    voxels, clipped = _rescaled(read(record.source_box(box)), record.rescale, box, source.location)
    written = writer.write(box, voxels, check)
    if voxel_digest(writer.read(box)) != written.digest:
        raise TargetError(f"{box} of {reference.target} reads back other than it was written; check the disk")
    return BlockReport(
        number,
        box.voxels,
        written.digest,
        time.perf_counter() - started,
        0.0,
        bytes=written.bytes,
        file_digest=written.file_digest,
        absent=len(source.absent),
        clipped=clipped,
        repeats=REPEATS.take(),
    )


def make_coarser(number: int, pyramid: Pyramid, check: Callable[[], object]) -> BlockReport:
    """Make a block of a coarser level of the finer one; without a shard if it is 0 everywhere.

    Args:
        number: of the block.
        pyramid: the volume.
        check: called before anything gets its name or is deleted; raises if the volume is another's.
    """
    started = time.perf_counter()
    ((target,), box), (voxels,) = pyramid.targets_of(number), pyramid.downsample(number)
    if not voxels.any():
        target.clear(box, check)
        return BlockReport(number, 0, "", time.perf_counter() - started, 0.0, skipped=EMPTY)
    digest, stored, file_digest = target.write(box, voxels.reshape(*target.leading, *box.shape), check)
    return BlockReport(number, 0, digest, time.perf_counter() - started, 0.0, "", stored, file_digest)


def _rescaled(
    voxels: NDArray[np.generic], rescale: Rescale, box: Box, location: str
) -> tuple[NDArray[np.generic], int]:
    """Voxels in the target's type, and how many lie outside the stated limits.

    Raises:
        BlockError: no limits are stated, and a value does not fit the type.
    """
    converted, outside = rescale.apply(voxels)
    if outside and rescale.limits is None:
        value = voxels[converted != voxels].max()
        raise BlockError(
            f"{box} of {location} holds {value}, which {rescale.target} does not hold; choose a larger --dtype"
        )
    return converted, outside


def conversion_of(reference: ConversionRef) -> OpenConversion:
    """Source and target of a conversion, opened at its first block and cached.

    Raises:
        TargetLostError: the unfinished conversion is gone, or another one.
        SourceError: the source cannot be opened.
    """
    with _opening:
        if reference not in _open:
            while len(_open) >= _CACHED:
                _open.pop(next(iter(_open)))
            retain_heap()  # else each block's memory is returned to the system, which clears it again
            _open[reference] = _opened(reference)
        return _open[reference]


def forget(reference: ConversionRef) -> None:
    """Close what a serial run has opened in this process, which is the user's, and restore malloc."""
    with _opening:
        if _open.pop(reference, None) is not None:
            release_heap()


def _opened(reference: ConversionRef) -> OpenConversion:
    path = target_path(reference.target)
    found = unfinished(path)
    if found is None or found[0].digest != reference.digest:
        raise TargetLostError(
            f"{work_folder(path)} holds another conversion than the one that sent this block; use a path that is the "
            "same everywhere"
        )
    record, folder = found[0], work_folder(path)
    if isinstance(path, ObjectPath):
        lease_watch(path, reference.digest).refresh()
    census = record.source.chunk_census
    rule = ChunkRule(read_census(folder, census) if census else None, reference.missing_chunks)
    return OpenConversion(record, reference.source.open(), rule, open_writer(path, record.output))


def open_writer(path: TargetPath, output: OutputEntry) -> Writer:
    """Open the volume of an unfinished conversion to a path."""
    volume = unfinished_volume(path)
    if isinstance(volume, ObjectPath):
        return OmeZarrWriter(volume, output)
    return FORMATS[output.format].open(volume, output)
